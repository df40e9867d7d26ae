#!/usr/bin/env python3
"""A training folder as model folders in published forms.

    export.py DIR OUT [FORM ...]      all forms when none is named: bf16 fp8 mistral-bf16 mistral-fp8 bf16-gguf q8_0 q4_0
                                      w4a16 nvfp4 mlx-4bit

DIR may be several, with commas between: runs that went on from one another, each to rates near nothing, or published folders; named twice it
counts twice; the weights are their mean (Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization). Each form is a folder OUT/FORM that bise opens.
The weights are the running average of the checkpoint, rounded to BF16 first;
the other forms are made from those, by rounding to nearest. FP8 has the published shape: linears of the text layers in E4M3 with one scale per tensor,
static activation scales from held-in cases; all else BF16.
"""
import json
import os
import shutil
import sys

import torch
from safetensors.torch import save_file

import architecture

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "../goldens"), os.path.join(HERE, "../../tests/golden/model")]
FORMS = ("bf16", "fp8", "mistral-bf16", "mistral-fp8", "bf16-gguf", "q8_0", "q4_0", "w4a16", "nvfp4", "mlx-4bit")


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write("\n")


def trained_weights(directories):
    """HF name -> BF16 tensor, the mean over the checkpoints or published weights; the tied head is left out."""
    states = []
    for d in directories:
        if os.path.exists(f"{d}/checkpoint.pt"):
            state = torch.load(f"{d}/checkpoint.pt", weights_only=True)
            print(f"checkpoint of step {state['step']}, {state['tokens']} tokens, {state['seconds'] / 3600:.1f} hours")
            states.append(state["average"])
        else:
            model = architecture.build()
            architecture.load(model, d)
            print(f"published weights of {d}")
            states.append(model.state_dict())
    means = {k: sum(s[k].double() for s in states) / len(states) for k in states[0] if k != "lm_head.weight"}
    return {k: v.float().to(torch.bfloat16).contiguous() for k, v in means.items()}


def numbers():
    """The sizes in the words of tests/golden/model/make.py, whose writer of Mistral's layout is used here."""
    text, vision = architecture.CONFIG["text_config"], architecture.CONFIG["vision_config"]
    return {"text": "ministral3", "hidden": text["hidden_size"], "layers": text["num_hidden_layers"],
            "heads": text["num_attention_heads"], "kv": text["num_key_value_heads"], "head_dim": text["head_dim"],
            "ffn": text["intermediate_size"], "tied": True, "rope": architecture.ROPE, "tekken": "v15",
            "vision": {"hidden": vision["hidden_size"], "layers": vision["num_hidden_layers"], "heads": vision["num_attention_heads"],
                       "ffn": vision["intermediate_size"], "act": "silu"}}


def write_companions(folder, tekken):
    """What stands beside config.json and the weights."""
    # Greedy unless asked otherwise: the model knows one right answer.
    write_json(f"{folder}/generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11, "do_sample": False,
                                                    "max_length": 32768})
    image = {"image_processor_type": "PixtralImageProcessor", "patch_size": 14, "size": {"longest_edge": 1540}, "do_resize": True,
             "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "rescale_factor": 1 / 255, "resample": 3,
             "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    write_json(f"{folder}/processor_config.json", {
        "processor_class": "PixtralProcessor", "image_processor": image, "patch_size": 14, "spatial_merge_size": 2,
        "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"})
    write_json(f"{folder}/preprocessor_config.json", image)
    shutil.copy(tekken, f"{folder}/tekken.json")


def write_hf(folder, tekken, weights, fp8):
    config = dict(architecture.CONFIG)
    if fp8:
        config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None,
                                         "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"]}
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    write_json(f"{folder}/config.json", config)
    write_companions(folder, tekken)


def write_mistral(folder, tekken, weights, fp8, sizes=None):
    """`sizes`: those of the model where none are given; `tekken`: None for a head, which has no words of its own."""
    import make
    make.write_tokenizer = lambda *_, **__: tekken and shutil.copy(tekken, f"{folder}/tekken.json")
    make.VOCAB = architecture.VOCABULARY
    make.write_mistral(folder, sizes or numbers(), weights, fp8=fp8)


def activation_ranges(linears, tekken, forward, count=8):
    """{name: largest input} of the linears {name: module} in forward(batch), over training cases."""
    import batches
    import cases
    from render import Renderer
    import train
    ranges, renderer, tasks = {}, Renderer(tekken), cases.registry()
    for name, module in linears.items():
        module.register_forward_pre_hook(
            lambda m, a, key=name: ranges.__setitem__(key, max(ranges.get(key, 0.0), float(a[0].abs().max()))))
    with torch.no_grad():
        for task in batches.SHARES:
            for i in range(count):
                forward([batches.Sample(cases.make(task, train.TRAIN_SEED, i, tasks), renderer)])
    return ranges


def text_linears(model):
    """{name: module} of what is in E4M3 in the FP8 form."""
    return {name: m for name, m in model.named_modules() if ".language_model.layers." in name and isinstance(m, torch.nn.Linear)}


def text_ranges(weights, tekken):
    import batches
    model = architecture.build()
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    return activation_ranges(text_linears(model), tekken, lambda batch: batches.forward(model, batch))


def fp8_of(w):
    """(codes in E4M3, scale in BF16) of a tensor."""
    scale = (w.float().abs().max().clamp(min=1e-30) / 448).to(torch.bfloat16)
    return (w.float() / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def to_fp8(weights, ranges):
    out = {}
    for name, w in weights.items():
        module = name.removesuffix(".weight")
        if module not in ranges:
            out[name] = w
            continue
        out[name], out[module + ".weight_scale_inv"] = fp8_of(w)
        out[module + ".activation_scale"] = torch.tensor(1.1 * ranges[module] / 448).to(torch.bfloat16)
    return out


def write_gguf(folder, bf16_folder, kind):
    """model.gguf and mmproj.gguf; the vision side stays BF16, norms F32."""
    import make_gguf
    from gguf import GGMLQuantizationType, LlamaFileType
    from safetensors.torch import load_file
    weights = load_file(f"{bf16_folder}/model.safetensors")
    make_gguf.checkpoint = lambda variant: (bf16_folder, architecture.CONFIG, weights)
    make_gguf.OUT = folder
    made = GGMLQuantizationType[kind.upper()]
    make_gguf.write_text("model.gguf", "bise demo", lambda name: made, LlamaFileType[f"MOSTLY_{kind.upper()}"])
    make_gguf.write_projector("mmproj.gguf", "bise demo")
    shutil.copy(f"{bf16_folder}/tekken.json", folder)   # says which reasoning efforts there are


def main():
    directories, out, forms = sys.argv[1].split(","), sys.argv[2], sys.argv[3:] or FORMS
    unknown = set(forms) - set(FORMS)
    if unknown:
        sys.exit(f"unknown form {', '.join(sorted(unknown))}; known: {', '.join(FORMS)}")
    low_bit_forms = ("w4a16", "nvfp4", "mlx-4bit")
    tekken, weights = f"{directories[0]}/tekken.json", trained_weights(directories)
    quantised = to_fp8(weights, text_ranges(weights, tekken)) if any("fp8" in f for f in forms) else None
    for form in ["bf16"] + [f for f in forms if f != "bf16"]:   # GGUF is made from the BF16 folder
        folder = f"{out}/{form}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        if form in ("bf16", "fp8"):
            write_hf(folder, tekken, quantised if form == "fp8" else weights, form == "fp8")
        elif form.startswith("mistral"):
            write_mistral(folder, tekken, quantised if form.endswith("fp8") else weights, form.endswith("fp8"))
        elif form in low_bit_forms:
            import low_bit
            os.rmdir(folder)   # made anew there
            low_bit.write(form, out, dict(architecture.CONFIG), {k: v.float().numpy() for k, v in weights.items()})
            write_companions(folder, tekken)
        else:
            write_gguf(folder, f"{out}/bf16", form.removesuffix("-gguf"))
        print(form, sum(os.path.getsize(f"{folder}/{f}") for f in os.listdir(folder)), "bytes")


if __name__ == "__main__":
    main()
