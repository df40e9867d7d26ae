#!/usr/bin/env python3
"""The tokenizer of the demo model: tekken.json of version v15, cut to its first ranks.

    vocabulary.py FILE [SOURCE]     writes it; SOURCE is a whole tekken.json(.gz), by default the one in mistral_common

The control tokens, the pattern and the order of the ranks are those of the published file; the ranks come from
`tekken_240718.json` in mistral_common 1.13.1 (Copyright Mistral AI, Apache-2.0). A vocabulary cut at a rank is again a BPE
vocabulary: a token's parts always have lower ranks than the token.
"""
import base64
import gzip
import importlib.resources
import json
import os
import sys

SPECIALS = 1000
# 8192 ids, not the published 131072: half of a small model's bytes and a third of its training time would be rows that
# are never seen. Words beyond the first 7192 ranks take two or three tokens.
VOCABULARY = 8192

NAMES = {0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 5: "[AVAILABLE_TOOLS]", 6: "[/AVAILABLE_TOOLS]",
         7: "[TOOL_RESULTS]", 8: "[/TOOL_RESULTS]", 9: "[TOOL_CALLS]", 10: "[IMG]", 11: "<pad>", 12: "[IMG_BREAK]", 13: "[IMG_END]",
         14: "[PREFIX]", 15: "[MIDDLE]", 16: "[SUFFIX]", 17: "[SYSTEM_PROMPT]", 18: "[/SYSTEM_PROMPT]", 19: "[TOOL_CONTENT]",
         32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]", 35: "[/THINK]", 36: "[MODEL_SETTINGS]", 37: "[/MODEL_SETTINGS]"}


def tekken(source=None):
    if source is None:
        base = json.loads(importlib.resources.files("mistral_common").joinpath("data/tekken_240718.json").read_text(encoding="utf-8"))
    else:
        with (gzip.open if source.endswith(".gz") else open)(source, "rt", encoding="utf-8") as f:
            base = json.load(f)
    ranks = VOCABULARY - SPECIALS
    return {"config": base["config"] | {"num_vocab_tokens": ranks, "default_vocab_size": VOCABULARY, "version": "v15"},
            "vocab": base["vocab"][:ranks],
            "special_tokens": [{"rank": i, "token_str": NAMES.get(i, f"<SPECIAL_{i}>"), "is_control": True} for i in range(SPECIALS)],
            "version": 1, "type": "Tekken",
            "image": {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2},
            "model_settings_builder": {"reasoning_effort": {"type": "enum", "values": ["none", "high"], "accepts_none": True,
                                                            "default": "none"}}}


def without_space(source=None):
    """{id of a token that begins with a space: id of the same without it}, where both are in the vocabulary."""
    ids = {base64.b64decode(entry["token_bytes"]): SPECIALS + i for i, entry in enumerate(tekken(source)["vocab"])}
    return {token: ids[text[1:]] for text, token in ids.items() if text[:1] == b" " and text[1:] in ids}


def write(path, source=None):
    text = json.dumps(tekken(source), ensure_ascii=False, separators=(",", ":"))
    with open(path + ".part", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(path + ".part", path)


if __name__ == "__main__":
    write(*sys.argv[1:3])
