"""The same small model in the clothes of every tool that publishes quantised weights.

    python make_clothes.py            writes ../../tests/golden/own/clothes/ and clothes.json

Versions: transformers 5.23.0 and torch 2.15.0 for the logits, gguf 0.19.0, numpy.

The weights are those of ../../tests/golden/model/ckpt (smalltext; medium for the pictures), cut to 256 tokens and to one layer of medium.
A set of folders holds the same real numbers, so that one golden holds for all: `int4` (codes of four bits, groups of 32, scales with five
significant bits, every third one negative: all products are exact in BF16), `nvfp4`, `mxfp4`, `mxfp8`, and `vision`, an MLX
folder with mixed widths. Where a tool mixes widths the very same codes are stored with more bits.
clothes.json: per set the folders, input ids, logits of transformers in float32 on the real numbers, greedy ids and their gaps.
"""

import json
import os
import shutil
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "../../tests/golden")
OUT = os.path.join(GOLDEN, "own/clothes")
VOCAB, GROUP = 256, 32
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
NATIVE = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
          "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
          "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
GGUF = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
WIDE = "layers.1.mlp.down_proj"  # the module that tools with mixed widths store with eight bits


# ---------------------------------------------------------------- numbers
def bf16(x):
    """float32 -> BF16 bits; the values must be exact"""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def significant(x, bits):
    m, e = np.frexp(x)
    return np.ldexp(np.round(m * 2**bits), e - bits).astype(np.float32)


def quantise_int4(w):
    """-> unsigned codes [rows, columns], scales [rows, groups], the real numbers"""
    rows, columns = w.shape
    g = w.reshape(rows, -1, GROUP)
    s = np.maximum(significant(np.abs(g).max(-1) / 7.5, 5), np.float32(2.0**-12))
    s[np.arange(s.size).reshape(s.shape) % 3 == 1] *= -1
    q = np.clip(np.rint(g / s[..., None]), -8, 7)
    return (q + 8).astype(np.uint8).reshape(rows, columns), s, (q * s[..., None]).astype(np.float32).reshape(rows, columns)


def quantise_fp(w, table, group, scale_of):
    rows, columns = w.shape
    g = w.reshape(rows, -1, group)
    raw, s = scale_of(np.abs(g).max(-1))
    target = g / s[..., None]
    order = np.argsort(table[: len(table) // 2], kind="stable")
    grid = table[: len(table) // 2][order]
    at = np.clip(np.searchsorted((grid[1:] + grid[:-1]) / 2, np.abs(target)), 0, len(grid) - 1)
    code = order[at].astype(np.uint8) | np.where(target < 0, len(table) // 2, 0).astype(np.uint8)
    return code.reshape(rows, columns), raw, (table[code] * s[..., None]).astype(np.float32).reshape(rows, columns)


def e8m0_of(limit):
    def scale(amax):
        e = np.ceil(np.log2(np.maximum(amax, 1e-9) / limit)).astype(np.int32)
        return (e + 127).astype(np.uint8), np.ldexp(np.float32(1), e)
    return scale


def e4m3_over(g):
    """NVFP4: E4M3 scales of a matrix whose numbers are divided by g, a power of two so that 1/g says the same"""
    def scale(amax):
        raw = torch.from_numpy((amax / 6 * g).astype(np.float32)).clamp(2.0**-9, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        return raw, E4M3[raw] / np.float32(g)
    return scale


# ---------------------------------------------------------------- packing
def stream(u, bits, axis):
    """Codes along `axis` as the dense stream of 32-bit words, least significant bit first"""
    u = np.moveaxis(u, axis, -1).astype(np.uint64)
    n = u.shape[-1]
    words = np.zeros(u.shape[:-1] + ((n * bits + 31) // 32 + 1,), np.uint64)
    for i in range(n):
        word, shift = divmod(i * bits, 32)
        v = u[..., i] << np.uint64(shift)
        words[..., word] |= v & np.uint64(0xFFFFFFFF)
        words[..., word + 1] |= v >> np.uint64(32)
    return np.ascontiguousarray(np.moveaxis(words[..., : (n * bits + 31) // 32], -1, axis).astype(np.uint32))


def awq_words(u):
    """Eight outputs of a row of [in, out] in a word, in the order 0 2 4 6 1 3 5 7"""
    u = u.reshape(u.shape[0], -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]].astype(np.uint32)
    return (u << (4 * np.arange(8, dtype=np.uint32))).sum(-1, dtype=np.uint32)


def nibbles(codes):
    return (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)


def split_half(codes, block):
    """GGUF: low nibbles hold the first half of a block"""
    c = codes.reshape(codes.shape[0], -1, block)
    return (c[..., : block // 2] | c[..., block // 2:] << 4).astype(np.uint8)


def interleave(w, heads):
    return np.ascontiguousarray(w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape))


# ---------------------------------------------------------------- files
def save(folder, config, tensors, name="model", config_name="config.json", mlx=False):
    """tensors: name -> (dtype, array). MLX: unpadded header, shuffled order, data at an odd address"""
    os.makedirs(f"{OUT}/{folder}")
    with open(f"{OUT}/{folder}/{config_name}", "w") as f:
        json.dump(config, f, indent=1)
    names = sorted(tensors)
    if mlx:
        np.random.default_rng(5).shuffle(names)
    header, data = {"__metadata__": {"format": "mlx" if mlx else "pt"}}, b""
    for n in names:
        dtype, array = tensors[n]
        raw = np.ascontiguousarray(array).tobytes()
        header[n] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * ((len(text) + 1) % 2 if mlx else -len(text) % 8)
    with open(f"{OUT}/{folder}/{name}.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data)


def group_config(bits, kind, group, strategy="group", targets=("Linear",), activations=None, **more):
    return {"targets": list(targets), "input_activations": activations, "output_activations": None,
            "weights": {"num_bits": bits, "type": kind, "symmetric": True, "strategy": strategy, "group_size": group, "dynamic": False} | more}


def compressed(fmt, *groups):
    return {"quant_method": "compressed-tensors", "format": fmt, "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {f"group_{i}": g for i, g in enumerate(groups)}, "kv_cache_scheme": None, "sparsity_config": {},
            "transform_config": {}, "global_compression_ratio": None, "version": "0.20.0"}


class Model:
    def __init__(self):
        folder = f"{GOLDEN}/model/ckpt/smalltext"
        self.config = json.load(open(f"{folder}/hf-bf16/config.json")) | {"vocab_size": VOCAB}
        self.params = json.load(open(f"{folder}/mistral-bf16/params.json")) | {"vocab_size": VOCAB}
        self.weights = {}
        for file in sorted(os.listdir(f"{folder}/hf-bf16")):
            if file.endswith(".safetensors"):
                self.weights |= {n: t.float().numpy() for n, t in load_file(f"{folder}/hf-bf16/{file}").items()}
        for n in ("model.embed_tokens.weight", "lm_head.weight"):
            self.weights[n] = self.weights[n][:VOCAB]
        self.vectors = {n: w for n, w in self.weights.items() if w.ndim == 1}
        self.matrices = {n.removesuffix(".weight"): w for n, w in self.weights.items() if w.ndim == 2}
        self.linears = {n: w for n, w in self.matrices.items() if "layers." in n}

    def dense(self, values, skip=()):
        out = {n: ("BF16", bf16(v)) for n, v in self.vectors.items()}
        return out | {n + ".weight": ("BF16", bf16(v)) for n, v in values.items() if n not in skip}

    def heads(self, name):
        return self.config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"] if "q_proj" in name or "k_proj" in name else 0

    def native(self, tensors):
        """HF names and rows -> consolidated names, Q and K interleaved in every tensor that has their rows"""
        out = {}
        for n, (dtype, a) in tensors.items():
            heads = self.heads(n)
            if heads and "shape" not in n and a.ndim == 2:
                a = interleave(a, heads)
            n = n.removeprefix("model.").replace("embed_tokens", "tok_embeddings").replace("lm_head", "output")
            for k, v in NATIVE.items():
                n = n.replace(k, v)
            out[n] = (dtype, a)
        return out

    def gguf(self, file, blocks, dense, extra=()):
        """blocks: name -> raw bytes [rows, row bytes] and their type; the rest as F32 and, matrices, as BF16"""
        c, writer = self.config, gguf.GGUFWriter(f"{OUT}/{file}", "llama")
        writer.add_block_count(c["num_hidden_layers"])
        writer.add_context_length(c["max_position_embeddings"])
        writer.add_embedding_length(c["hidden_size"])
        writer.add_feed_forward_length(c["intermediate_size"])
        writer.add_head_count(c["num_attention_heads"])
        writer.add_head_count_kv(c["num_key_value_heads"])
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
        writer.add_rope_dimension_count(c["head_dim"])
        writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
        writer.add_rope_freq_base(c["rope_theta"])
        writer.add_vocab_size(VOCAB)

        def name(n):
            n = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}.get(n, n)
            n = n.replace("model.layers.", "blk.")
            for k, v in GGUF.items():
                n = n.replace(k, v)
            return n
        for n, (raw, kind) in blocks.items():
            writer.add_tensor(name(n) + ".weight", interleave(raw, self.heads(n)) if self.heads(n) else np.ascontiguousarray(raw), raw_dtype=kind)
        for n, v in dense.items():
            bf = gguf.GGMLQuantizationType.BF16 if v.ndim == 2 else None
            writer.add_tensor(name(n.removesuffix(".weight")) + ".weight", bf16(v).view(np.uint8) if bf else v.astype(np.float32), raw_dtype=bf)
        for n, suffix, v in extra:
            writer.add_tensor(name(n) + suffix, v)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


# ---------------------------------------------------------------- the sets
def int4(m):
    q = {n: quantise_int4(w) for n, w in m.matrices.items()}
    values = {n: v for n, (_, _, v) in q.items()}
    linears = {n: q[n] for n in m.linears}
    bits = {n: 8 if WIDE in n else 4 for n in q}
    as_bits = lambda n, u: u + np.uint8(2 ** (bits[n] - 1) - 8)      # the same number with more bits
    config = lambda quantisation: m.config | {"quantization_config": quantisation}
    dense = m.dense(values, skip=linears)
    save("int4-hf-bf16", m.config, m.dense(values))
    save("int4-mistral-bf16", m.params, m.native(m.dense(values)), "consolidated", "params.json")

    packed = dict(dense)
    for n, (u, s, _) in linears.items():
        packed |= {f"{n}.weight_packed": ("I32", stream(u, 4, 1)), f"{n}.weight_scale": ("BF16", bf16(s)),
                   f"{n}.weight_shape": ("I64", np.array(u.shape, np.int64))}
    w4a16 = compressed("pack-quantized", group_config(4, "int", GROUP))
    save("int4-w4a16", config(w4a16), packed)
    save("int4-mistral-w4a16", m.params | {"quantization": w4a16}, m.native(packed), "consolidated", "params.json")

    mixed = {"int4-w4a16-w8a16": dict(dense), "int4-gptq": dict(dense), "int4-auto-round": dict(dense), "int4-awq": dict(dense)}
    for n, (u, s, _) in linears.items():
        b, f16 = bits[n], s.astype(np.float16)
        wide = as_bits(n, u)
        mixed["int4-w4a16-w8a16"] |= {f"{n}.weight_packed": ("I32", stream(wide, b, 1)), f"{n}.weight_scale": ("F16", f16),
                                      f"{n}.weight_shape": ("I64", np.array(u.shape, np.int64))}
        zeros = np.full((s.shape[1], u.shape[0]), 2 ** (b - 1) - 1, np.uint8)
        gptq = {f"{n}.qweight": ("I32", stream(wide.T, b, 0)), f"{n}.qzeros": ("I32", stream(zeros, b, 1)), f"{n}.scales": ("F16", f16.T)}
        mixed["int4-auto-round"] |= gptq
        mixed["int4-gptq"] |= gptq | {f"{n}.g_idx": ("I32", (np.arange(u.shape[1]) // GROUP).astype(np.int32))}
        mixed["int4-awq"] |= {f"{n}.qweight": ("I32", awq_words(u.T)), f"{n}.scales": ("F16", f16.T),
                              f"{n}.qzeros": ("I32", awq_words(np.full((s.shape[1], u.shape[0]), 8, np.uint8)))}
    save("int4-w4a16-w8a16", config(compressed("pack-quantized", group_config(4, "int", GROUP),
         group_config(8, "int", GROUP, targets=["re:.*layers\\.1\\.mlp\\.down_proj$"]))), mixed["int4-w4a16-w8a16"])
    tool = {"bits": 4, "group_size": GROUP, "sym": True, "data_type": "int", "autoround_version": "0.16.1"}
    save("int4-gptq", config(tool | {"quant_method": "gptq", "desc_act": False, "lm_head": False,
         "dynamic": {"+:.*layers\\.1\\.mlp\\.down_proj.*": {"bits": 8}, "-:.*vision.*": {}}}), mixed["int4-gptq"])
    save("int4-auto-round", config(tool | {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq",
         "extra_config": {f"model.language_model.{WIDE}": {"bits": 8}, "lm_head": {"bits": 16, "data_type": "float"}}}), mixed["int4-auto-round"])
    save("int4-awq", config(tool | {"quant_method": "awq", "version": "gemm", "zero_point": False,
         "modules_to_not_convert": ["model.language_model.layers", "lm_head"]}), mixed["int4-awq"])

    mlx, entries = {n: ("BF16", bf16(v)) for n, v in m.vectors.items()}, {}
    for n, (u, s, _) in q.items():
        mlx |= {f"{n}.weight": ("U32", stream(as_bits(n, u), bits[n], 1)), f"{n}.scales": ("BF16", bf16(s)),
                f"{n}.biases": ("BF16", bf16(-s * 2 ** (bits[n] - 1)))}
        entries[n] = {"group_size": None, "bits": bits[n]}
    quantisation = {"group_size": GROUP, "bits": 4, "mode": "affine"} | entries
    save("int4-mlx", m.config | {"quantization": quantisation, "quantization_config": quantisation}, mlx, mlx=True)

    blocks = {}
    for n, (u, s, _) in q.items():
        raw = np.concatenate([s.astype(np.float16)[..., None].view(np.uint8).reshape(*s.shape, 2), split_half(u, 32)], -1)
        blocks[n] = (raw.reshape(u.shape[0], -1), gguf.GGMLQuantizationType.Q4_0)
    m.gguf("int4-q4_0.gguf", blocks, m.vectors)
    return values


def nvfp4(m):
    g = {n: np.float32(2.0 ** np.floor(np.log2(2688 / np.abs(w).max()))) for n, w in m.linears.items()}
    q = {n: quantise_fp(w, FP4, 16, e4m3_over(g[n])) for n, w in m.linears.items()}
    values = {n: w if n not in q else q[n][2] for n, w in m.matrices.items()}
    a4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16, "dynamic": "local"}
    ct, opt, one = m.dense(values, skip=q), m.dense(values, skip=q), np.ones(1, np.float32)
    for n, (code, raw, _) in q.items():
        ct |= {f"{n}.weight_packed": ("U8", nibbles(code)), f"{n}.weight_scale": ("F8_E4M3", raw),
               f"{n}.weight_global_scale": ("F32", one * g[n]), f"{n}.input_global_scale": ("F32", one * 300)}
        opt |= {f"{n}.weight": ("U8", nibbles(code)), f"{n}.weight_scale": ("F8_E4M3", raw),
                f"{n}.weight_scale_2": ("F32", (one / g[n]).reshape(())), f"{n}.input_scale": ("F32", (one / 300).reshape(()))}
    group = group_config(4, "float", 16, "tensor_group", activations=a4, scale_dtype="torch.float8_e4m3fn")
    config = compressed("nvfp4-pack-quantized", group | {"format": None})
    save("nvfp4-w4a4", m.config | {"quantization_config": config}, ct)
    save("nvfp4-mistral", m.params | {"quantization": config}, m.native(ct), "consolidated", "params.json")
    save("nvfp4-modelopt", m.config | {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"],
         "producer": {"name": "modelopt", "version": "0.37.0"}}}, opt)
    blocks, dense, extra = {}, {n: v for n, v in m.vectors.items()}, []
    for n, v in values.items():
        if n not in q or v.shape[1] % 64 != 0:
            dense[n] = v
            continue
        code, raw, _ = q[n]
        data = np.concatenate([raw.reshape(v.shape[0], -1, 4), split_half(code, 16).reshape(v.shape[0], -1, 32)], -1)
        blocks[n] = (data.reshape(v.shape[0], -1), gguf.GGMLQuantizationType.NVFP4)
        extra.append((n, ".scale", one / g[n]))
    dense = {n: interleave(v, m.heads(n)) if m.heads(n) else v for n, v in dense.items()}
    m.gguf("nvfp4.gguf", blocks, dense, extra)
    return values


def mx(m, bits):
    table, limit, fmt = (FP4, 6, "mxfp4-pack-quantized") if bits == 4 else (E4M3, 448, "mxfp8-quantized")
    table = np.where(np.isnan(table), np.inf, table).astype(np.float32)
    q = {n: quantise_fp(w, table, 32, e8m0_of(limit)) for n, w in m.matrices.items()}
    values = {n: v for n, (_, _, v) in q.items()}
    name, linears = f"mxfp{bits}", m.linears
    ct, mlx = m.dense(values, skip=linears), {n: ("BF16", bf16(v)) for n, v in m.vectors.items()}
    for n, (code, raw, _) in q.items():
        words = nibbles(code).view(np.uint32) if bits == 4 else code.view(np.uint32)
        mlx |= {f"{n}.weight": ("U32", words), f"{n}.scales": ("U8", raw)}
        if n in linears:
            ct |= {f"{n}.weight_packed": ("U8", nibbles(code))} if bits == 4 else {f"{n}.weight": ("F8_E4M3", code)}
            ct[f"{n}.weight_scale"] = ("U8" if bits == 4 else "F8_E8M0", raw)
    group = group_config(bits, "float", 32, scale_dtype="torch.uint8") | {"format": fmt}
    save(f"{name}-ct", m.config | {"quantization_config": compressed(fmt, group)}, ct)
    mode = {"group_size": 32, "bits": bits, "mode": name}
    save(f"{name}-mlx", m.config | {"quantization": mode, "quantization_config": mode}, mlx, mlx=True)
    return values


def vision():
    """One layer of medium with its tower, as mlx-vlm's mixed recipes and AutoRound's prefixes leave it"""
    folder = f"{GOLDEN}/model/ckpt/medium/hf-bf16"
    config, weights = json.load(open(f"{folder}/config.json")), {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            weights |= {n: t.float().numpy() for n, t in load_file(f"{folder}/{file}").items()}
    config["text_config"] |= {"num_hidden_layers": 1, "vocab_size": VOCAB}
    config["vision_config"]["num_hidden_layers"] = 1
    widths = {"q_proj": 3, "k_proj": 5, "v_proj": 6, "o_proj": 2, "gate_proj": 3, "up_proj": 8, "down_proj": 6, "embed_tokens": 4}
    entries, tensors, real = {}, {}, {}
    for name, w in weights.items():
        if "layers." in name and ".layers.0." not in name:
            continue
        if "embed_tokens" in name or name == "lm_head.weight":
            w = w[:VOCAB]
        real[name] = w
        mlx = name.replace("model.language_model.", "language_model.model.").replace("model.vision_tower.", "vision_tower.vision_model.")
        mlx = mlx.replace("model.multi_modal", "multi_modal").replace("lm_head", "language_model.lm_head")
        kind = name.split(".")[-2]
        if "language_model" not in name or kind not in widths:
            tensors[mlx] = ("BF16", bf16(w.transpose(0, 2, 3, 1) if w.ndim == 4 else w))
            continue
        bits, group, mlx = widths[kind], 32 if kind == "q_proj" else 64, mlx.removesuffix(".weight")
        g = w.reshape(w.shape[0], -1, group)
        lo = g.min(-1)
        s = np.maximum(significant((g.max(-1) - lo) / (2**bits - 1), 5), np.float32(2.0**-14))
        bias = significant(lo, 7)
        u = np.clip(np.rint((g - bias[..., None]) / s[..., None]), 0, 2**bits - 1).astype(np.float32)
        real[name] = (u * s[..., None] + bias[..., None]).reshape(w.shape)
        tensors |= {f"{mlx}.weight": ("U32", stream(u.astype(np.uint8).reshape(w.shape), bits, 1)), f"{mlx}.scales": ("BF16", bf16(s)),
                    f"{mlx}.biases": ("BF16", bf16(bias))}
        entries["model." + mlx.replace("language_model.model.", "language_model.")] = {"group_size": group, "bits": bits}
    quantisation = {"group_size": 64, "bits": 4} | entries | {"language_model.lm_head": False}
    save("vision-mlx", config | {"quantization": quantisation, "quantization_config": quantisation}, tensors, mlx=True)
    return config, {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in real.items()}


# ---------------------------------------------------------------- logits
def entry(golden, model, folders, ids, px=None, **more):
    positions = golden.pick_positions(ids)
    rows, tokens, gaps = golden.run(model.eval(), ids, px, positions, 16)
    print(folders, "gap", min(gaps), "distinct", len(set(tokens)))
    return {"folders": folders, "ids": ids, "logits": {str(p): golden.summary(r, [0]) for p, r in zip(positions, rows)},
            "greedy": tokens, "gaps": [round(x, 5) for x in gaps]} | more


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    sys.path.insert(0, f"{GOLDEN}/model")
    import golden
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    m, sets = Model(), []
    ids = [1] + [int(i) for i in np.random.default_rng(3).integers(20, VOCAB, 40)]
    for values in (int4(m), nvfp4(m), mx(m, 4), mx(m, 8)):
        folders = sorted(f for f in os.listdir(OUT) if not any(f in s["folders"] for s in sets) and not f.startswith("vision"))
        folders = [f for f in folders if f.split("-")[0].split(".")[0] == ("int4", "nvfp4", "mxfp4", "mxfp8")[len(sets)]]
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(f"{OUT}/int4-hf-bf16"), attn_implementation="eager").float()
        state = {n + ".weight": torch.from_numpy(v) for n, v in values.items()} | {n: torch.from_numpy(v) for n, v in m.vectors.items()}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not missing and not unexpected, (missing, unexpected)
        sets.append(entry(golden, model, folders, ids))
    config, state = vision()
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), attn_implementation="eager").float()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    px = golden.pixels([f"{GOLDEN}/model/images/small.png"])
    short = [1, 30, 31, 10, 40, 41, 42]
    sets.append(entry(golden, model, ["vision-mlx"], golden.expand(short, px["image_sizes"]), px, image="small.png"))
    with open(f"{GOLDEN}/own/clothes.json", "w") as f:
        f.write(json.dumps({"sets": sets}, separators=(",", ":")).replace('{"folders"', '\n{"folders"') + "\n")
    os.system(f"du -sk {OUT}/* {OUT}")


if __name__ == "__main__":
    main()
