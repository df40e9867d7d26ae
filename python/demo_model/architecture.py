"""The network: transformers' own Mistral 3 classes with small numbers.

Sides are multiples of 256, so that every published weight format fits (blocks of 256, groups of 128). YaRN as in Medium 3.5
(mscale 1, mscale_all_dim 0, no query scaling), with an original context of 1024, so that a prompt of 2k to 16k is past it.
"""
from vocabulary import VOCABULARY

ROPE = {"rope_type": "yarn", "type": "yarn", "rope_theta": 100000.0, "factor": 32.0, "beta_fast": 4.0, "beta_slow": 1.0,
        "original_max_position_embeddings": 1024, "max_position_embeddings": 32768, "mscale": 1.0, "mscale_all_dim": 0.0,
        "llama_4_scaling_beta": 0}

CONFIG = {
    "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "image_token_index": 10,
    "multimodal_projector_bias": False, "projector_hidden_act": "gelu", "spatial_merge_size": 2, "vision_feature_layer": -1,
    "text_config": {
        "model_type": "ministral3", "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 32, "intermediate_size": 512, "vocab_size": VOCABULARY, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "sliding_window": None, "attention_dropout": 0.0, "initializer_range": 0.04, "use_cache": True, "rope_parameters": ROPE,
        "max_position_embeddings": 32768, "tie_word_embeddings": True},
    "vision_config": {
        "model_type": "pixtral", "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256, "num_attention_heads": 4,
        "head_dim": 32, "hidden_act": "silu", "num_channels": 3, "patch_size": 14, "image_size": 1540, "attention_dropout": 0.0,
        "initializer_range": 0.04, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "tie_word_embeddings": True, "dtype": "bfloat16", "transformers_version": "5.23.0"}


def build(seed=0):
    """A model with fresh weights, float32."""
    import copy

    import torch
    from copying_start import copying_start
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration
    config = copy.deepcopy(CONFIG)
    config.pop("transformers_version")
    config.pop("architectures")
    config["dtype"] = "float32"
    torch.manual_seed(seed)
    model = Mistral3ForConditionalGeneration(Mistral3Config(**config))
    copying_start(model, seed)
    return model


def load(model, folder):
    """Weights of a published folder (Hugging Face layout, BF16 or FP8 with a scale per tensor) into a model of `build`."""
    import torch
    from safetensors.torch import load_file
    stored = load_file(f"{folder}/model.safetensors")
    weights = {}
    for name, w in stored.items():
        if name.endswith(("_scale_inv", "activation_scale")):
            continue
        scale = stored.get(name.removesuffix(".weight") + ".weight_scale_inv")
        weights[name] = w.to(torch.float32) * (1 if scale is None else scale.float())
    left = model.load_state_dict(weights, strict=False)
    if left.unexpected_keys or set(left.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"{folder} is not this model: {left}")
