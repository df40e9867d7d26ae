"""The text linears of the demo model in 4 bits as tools publish them: W4A16 and NVFP4 (compressed-tensors) and MLX. Round to
nearest, no calibration; scales per group of 32, 16 and 64. Packing is that of python/goldens/make_clothes.py."""
import make_clothes as clothes
import numpy as np


def bf16(x):
    """float32 -> BF16 bits, rounded to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def rounded(x):
    """The nearest numbers that BF16 can hold."""
    return (bf16(x).astype(np.uint32) << 16).view(np.float32).reshape(x.shape)


def is_linear(name):
    return name.startswith("model.language_model.layers.") and name.endswith("_proj.weight")


def compressed_config(fmt, group):
    config = clothes.compressed(fmt, group)
    config["ignore"] = ["re:.*vision_tower.*", "re:.*multi_modal_projector.*", "lm_head"]
    return config


def fused(name):
    """Linears that programs run as one matrix have one name here."""
    for part in ("q_proj", "k_proj", "v_proj"):
        name = name.replace(part, "qkv")
    return name.replace("gate_proj", "gate_up").replace("up_proj", "gate_up")


def w4a16(config, weights):
    tensors = {}
    for name, w in weights.items():
        if not is_linear(name):
            tensors[name] = ("BF16", bf16(w))
            continue
        base, g = name.removesuffix(".weight"), w.reshape(w.shape[0], -1, 32)
        scale = np.maximum(rounded(np.abs(g).max(-1) / 7.5), np.float32(2.0**-20))
        codes = (np.clip(np.rint(g / scale[..., None]), -8, 7) + 8).astype(np.uint8).reshape(w.shape)
        tensors |= {f"{base}.weight_packed": ("I32", clothes.stream(codes, 4, 1)), f"{base}.weight_scale": ("BF16", bf16(scale)),
                    f"{base}.weight_shape": ("I64", np.array(w.shape, np.int64))}
    return config | {"quantization_config": compressed_config("pack-quantized", clothes.group_config(4, "int", 32))}, tensors


def nvfp4(config, weights):
    tensors, one, largest = {}, np.ones(1, np.float32), {}
    for name, w in weights.items():
        if is_linear(name):   # linears that are run as one share the global scale
            largest[fused(name)] = max(largest.get(fused(name), 0.0), float(np.abs(w).max()))
    for name, w in weights.items():
        if not is_linear(name):
            tensors[name] = ("BF16", bf16(w))
            continue
        base, g = name.removesuffix(".weight"), np.float32(448 * 6 / largest[fused(name)])
        code, raw, _ = clothes.quantise_fp(w, clothes.FP4, 16, clothes.e4m3_over(g))
        tensors |= {f"{base}.weight_packed": ("U8", clothes.nibbles(code)), f"{base}.weight_scale": ("F8_E4M3", raw),
                    f"{base}.weight_global_scale": ("F32", one * g)}
    group = clothes.group_config(4, "float", 16, "tensor_group", scale_dtype="torch.float8_e4m3fn")
    return config | {"quantization_config": compressed_config("nvfp4-pack-quantized", group)}, tensors


def mlx(config, weights):
    """Affine 4 bits, groups of 64; the embedding stays BF16, as do vision tower and projector."""
    tensors = {}
    for name, w in weights.items():
        short = name.replace("model.language_model.", "language_model.model.")
        short = short.replace("model.vision_tower.", "vision_tower.vision_model.").replace("model.multi_modal", "multi_modal")
        if not is_linear(name):
            tensors[short] = ("BF16", bf16(w.transpose(0, 2, 3, 1) if w.ndim == 4 else w))
            continue
        base, g = short.removesuffix(".weight"), w.reshape(w.shape[0], -1, 64)
        bias = rounded(g.min(-1))
        scale = np.maximum(rounded((g.max(-1) - bias) / 15), np.float32(2.0**-20))
        codes = np.clip(np.rint((g - bias[..., None]) / scale[..., None]), 0, 15).astype(np.uint8).reshape(w.shape)
        tensors |= {f"{base}.weight": ("U32", clothes.stream(codes, 4, 1)), f"{base}.scales": ("BF16", bf16(scale)),
                    f"{base}.biases": ("BF16", bf16(bias))}
    mode = {"group_size": 64, "bits": 4, "mode": "affine", "language_model.model.embed_tokens": False}
    return config | {"quantization": mode, "quantization_config": mode}, tensors


FORMS = {"w4a16": w4a16, "nvfp4": nvfp4, "mlx-4bit": mlx}


def write(form, out, config, weights):
    """Writes OUT/FORM/config.json and model.safetensors; weights: HF name -> float32 array."""
    config, tensors = FORMS[form](config, weights)
    clothes.OUT = out
    clothes.save(form, config, tensors, mlx=form.startswith("mlx"))
