"""The small golden checkpoints (tests/golden/model/ckpt) as GGUF files, and logits of the quantised ones.

    python make_gguf.py            writes ../../tests/golden/own/gguf/ and gguf.json

Versions: gguf 0.19.0, transformers 5.23.0, torch 2.15.0, safetensors and numpy as they require.

Metadata and tensor names are those that llama.cpp's converter writes for these models: architecture mistral3
(llama for plain Mistral), rows of Q and K interleaved per head, 1-D tensors F32, a Tekken vocabulary as
byte-level BPE. BF16 files hold the very weights of the hf-bf16 folders, so their goldens are those of tests/golden/model. For
the others gguf.json has logits of transformers in float32 (eager attention) with the weights that the file decodes to.
"""

import base64
import json
import os
import sys

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "../../tests/golden")
OUT = os.path.join(GOLDEN, "own/gguf")
T = gguf.GGMLQuantizationType

TEXT = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
VISION = {"attention.q_proj": "attn_q", "attention.k_proj": "attn_k", "attention.v_proj": "attn_v", "attention.o_proj": "attn_out",
          "feed_forward.gate_proj": "ffn_gate", "feed_forward.up_proj": "ffn_up", "feed_forward.down_proj": "ffn_down",
          "attention_norm": "ln1", "ffn_norm": "ln2"}
OTHER = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "vision_tower.patch_conv": "v.patch_embd",
         "vision_tower.ln_pre": "v.pre_ln", "multi_modal_projector.norm": "mm.input_norm",
         "multi_modal_projector.patch_merger.merging_layer": "mm.patch_merger",
         "multi_modal_projector.linear_1": "mm.1", "multi_modal_projector.linear_2": "mm.2"}


def checkpoint(variant):
    folder = f"{GOLDEN}/model/ckpt/{variant}/hf-bf16"
    config = json.load(open(f"{folder}/config.json"))
    weights = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            weights |= load_file(f"{folder}/{file}")
    return folder, config, weights


def gguf_name(name):
    name = name.removesuffix(".weight").removeprefix("model.").removeprefix("language_model.")
    if name in OTHER:
        return OTHER[name] + ".weight"
    if name.startswith("layers."):
        layer, tail = name.removeprefix("layers.").split(".", 1)
        return f"blk.{layer}.{TEXT[tail]}.weight"
    layer, tail = name.removeprefix("vision_tower.transformer.layers.").split(".", 1)
    return f"v.blk.{layer}.{VISION[tail]}.weight"


def interleave(w, num_heads):
    """Row 2 i + p of a head comes from row p h / 2 + i."""
    return w.reshape(num_heads, 2, w.shape[0] // num_heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def deinterleave(w, num_heads):
    return w.reshape(num_heads, w.shape[0] // num_heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def heads_of(name, config):
    text, vision = config.get("text_config", config), config.get("vision_config")
    if "q_proj" not in name and "k_proj" not in name:
        return None
    if "vision_tower" in name:
        return vision["num_attention_heads"]
    return text["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]


def to_type(w, kind):
    """-> the array the writer takes, its raw type (None: by numpy dtype), and the float32 values it decodes to"""
    if kind == T.F32:
        return w, None, w
    if kind == T.F16:
        return w.astype(np.float16), None, w.astype(np.float16).astype(np.float32)
    raw = quantize(w, kind)
    return raw, kind, dequantize(raw, kind)


def gpt2_alphabet():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {b: chr(b) for b in visible}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def add_tokenizer(writer, folder):
    tekken = json.load(open(f"{folder}/tekken.json", encoding="utf-8"))
    alphabet = gpt2_alphabet()
    spell = lambda raw: "".join(alphabet[b] for b in raw)
    specials = [t["token_str"] for t in tekken["special_tokens"]]
    ranks = {base64.b64decode(t["token_bytes"]): t["rank"] for t in tekken["vocab"][: tekken["config"]["num_vocab_tokens"]]}
    by_rank = sorted(ranks, key=ranks.get)
    # A merge for every way to cut a token into two tokens, in the order of the token's rank.
    merges = []
    for token in by_rank:
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += [f"{spell(a)} {spell(b)}" for a, b in sorted(cuts, key=lambda c: (ranks[c[0]], ranks[c[1]]))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("tekken")
    writer.add_token_list(specials + [spell(t) for t in by_rank])
    writer.add_token_types([gguf.TokenType.CONTROL] * len(specials) + [gguf.TokenType.NORMAL] * len(by_rank))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(11)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def add_text_metadata(writer, config, name, file_type, log_multiplier):
    c = config.get("text_config", config)
    rope = c.get("rope_parameters")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_dimension_count(c["head_dim"])
    writer.add_rope_freq_base(rope["rope_theta"] if rope else c["rope_theta"])
    writer.add_vocab_size(c["vocab_size"])
    if rope:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"] if log_multiplier is None else log_multiplier)
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_text(file, variant, kind_of, file_type, log_multiplier=None, split=0):
    """kind_of: GGUF tensor name -> type for matrices. -> the decoded weights under their HF names"""
    folder, config, weights = checkpoint(variant)
    arch = "mistral3" if "rope_parameters" in config.get("text_config", config) else "llama"
    writer = gguf.GGUFWriter(f"{OUT}/{file}", arch, split_max_tensors=split)
    add_text_metadata(writer, config, variant, file_type, log_multiplier)
    add_tokenizer(writer, folder)
    decoded = {}
    for name, tensor in weights.items():
        if "vision_tower" in name or "multi_modal_projector" in name:
            continue
        w, heads = tensor.float().numpy(), heads_of(name, config)
        if heads:
            w = interleave(w, heads)
        target = gguf_name(name)
        raw, raw_type, values = to_type(np.ascontiguousarray(w), T.F32 if w.ndim == 1 else kind_of(target))
        writer.add_tensor(target, raw, raw_dtype=raw_type)
        decoded[name] = torch.from_numpy(deinterleave(values, heads) if heads else values)
    finish(writer)
    return decoded


def write_projector(file, variant):
    _, config, weights = checkpoint(variant)
    v = config["vision_config"]
    writer = gguf.GGUFWriter(f"{OUT}/{file}", "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("pixtral")
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_image_size(v["image_size"])
    writer.add_vision_patch_size(v["patch_size"])
    writer.add_vision_embedding_length(v["hidden_size"])
    writer.add_vision_feed_forward_length(v["intermediate_size"])
    writer.add_vision_block_count(v["num_hidden_layers"])
    writer.add_vision_head_count(v["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.48145466, 0.4578275, 0.40821073])
    writer.add_vision_image_std([0.26862954, 0.26130258, 0.27577711])
    writer.add_vision_spatial_merge_size(config["spatial_merge_size"])
    writer.add_vision_use_silu(v["hidden_act"] == "silu")
    for name, tensor in weights.items():
        if "vision_tower" not in name and "multi_modal_projector" not in name:
            continue
        w, heads = tensor.float().numpy(), heads_of(name, config)
        if heads:
            w = interleave(w, heads)
        # The patch convolution stays F32, as the converter keeps it; all else as in the checkpoint.
        kind = T.F32 if w.ndim == 1 or "patch_conv" in name else T.BF16
        raw, raw_type, _ = to_type(np.ascontiguousarray(w), kind)
        writer.add_tensor(gguf_name(name), raw, raw_dtype=raw_type)
    row = weights["model.language_model.embed_tokens.weight"][12].float().numpy()
    writer.add_tensor("v.token_embd.img_break", row)
    finish(writer)


def logits(variant, decoded):
    sys.path.insert(0, f"{GOLDEN}/model")
    import golden
    prompts = json.load(open(f"{GOLDEN}/model/golden/{variant}.json"))["prompts"]
    folder, _, _ = checkpoint(variant)
    model = golden.load(folder, "float32")
    missing, unexpected = model.load_state_dict(decoded, strict=False)
    assert not unexpected, unexpected
    assert all("vision" in m or "projector" in m or "lm_head" in m for m in missing), missing
    out = {}
    for case in ("short", "text600"):
        p = prompts.get(case)
        if p is None:
            continue
        positions = golden.pick_positions(p["ids"])
        rows, tokens, gaps = golden.run(model, p["ids"], None, positions, golden.GREEDY)
        out[case] = {"ids": p["ids"], "logits": {str(at): golden.summary(row, p["sample_ids"]) for at, row in zip(positions, rows)},
                     "greedy": tokens, "gaps": [round(g, 5) for g in gaps]}
    return out


def mixed(name):
    if "attn_q" in name:
        return T.Q5_0
    if "attn_k" in name:
        return T.Q5_1
    if "attn_v" in name:
        return T.Q4_0
    if "attn_output" in name:
        return T.BF16
    if "ffn_gate" in name or "ffn_up" in name:
        return T.Q4_1
    return T.F16 if "token_embd" in name else T.Q8_0


def main():
    os.makedirs(OUT, exist_ok=True)
    for old in os.listdir(OUT):
        os.remove(os.path.join(OUT, old))
    F = gguf.LlamaFileType
    write_text("medium-bf16.gguf", "medium", lambda n: T.BF16, F.MOSTLY_BF16)
    write_projector("mmproj-medium-bf16.gguf", "medium")
    files = {
        # as converted before the fix of the published configuration
        "medium-prefix-q4_0.gguf": ("medium", write_text("medium-prefix-q4_0.gguf", "medium", lambda n: T.Q4_0, F.MOSTLY_Q4_0, log_multiplier=1.0)),
        "ministral-q8_0.gguf": ("ministral", write_text("ministral-q8_0.gguf", "ministral", lambda n: T.Q8_0, F.MOSTLY_Q8_0)),
        # three shards: the case names the first
        "devstral2-q8_0-00001-of-00003.gguf": ("devstral2", write_text("devstral2-q8_0.gguf", "devstral2", lambda n: T.Q8_0, F.MOSTLY_Q8_0, split=12)),
        "smalltext-mixed.gguf": ("smalltext", write_text("smalltext-mixed.gguf", "smalltext", mixed, F.GUESSED)),
    }
    cases = [{"file": file, "variant": variant, "prompts": logits(variant, decoded)} for file, (variant, decoded) in files.items()]
    with open(f"{GOLDEN}/own/gguf.json", "w") as f:
        f.write(json.dumps({"cases": cases}, separators=(",", ":")).replace('{"file"', '\n{"file"') + "\n")
    for file in sorted(os.listdir(OUT)):
        print(os.path.getsize(f"{OUT}/{file}"), file)


if __name__ == "__main__":
    main()
