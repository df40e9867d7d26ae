"""Cases -> token ids and pixels. Every prompt is rendered by mistral-common; nothing here writes a control token."""
import copy
import warnings

EOS, END_INST, TOOL_RESULTS, END_RESULTS, INST = 2, 4, 7, 8, 3


class Renderer:
    def __init__(self, tekken_path):
        from mistral_common.protocol.instruct.validator import ValidationMode
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
        warnings.filterwarnings("ignore", module="mistral_common")
        self.serving = MistralTokenizer.from_file(str(tekken_path), mode=ValidationMode.serving)
        self.finetuning = MistralTokenizer.from_file(str(tekken_path), mode=ValidationMode.finetuning)

    def _encode(self, tokenizer, request):
        from mistral_common.protocol.instruct.request import ChatCompletionRequest
        body = {"model": "demo", **copy.deepcopy(request)}
        made = ChatCompletionRequest.from_openai(messages=body.pop("messages"), tools=body.pop("tools", None), **body)
        out = tokenizer.encode_chat_completion(made)
        return out.tokens, out.images

    def prompt(self, case):
        """(ids, images): what is asked. Images are float arrays [3, h, w], sides multiples of 28."""
        return self._encode(self.serving, case.request)

    def whole(self, case):
        """(ids, learnt, images) of prompt and answer: learnt[i] says that token i was said by the assistant."""
        request = dict(case.request)
        request["messages"] = request["messages"] + [case.answer()]
        ids, images = self._encode(self.finetuning, request)
        return ids, answer_mask(ids), images

    def text(self, ids):
        return self.serving.instruct_tokenizer.tokenizer.decode(ids)


def answer_mask(ids):
    """The assistant speaks after [/INST] and after tool results, up to and including </s>. Text cannot contain these ids."""
    learnt, speaking = [], False
    for token in ids:
        if token in (INST, TOOL_RESULTS):
            speaking = False
        learnt.append(speaking)
        if token in (END_INST, END_RESULTS):
            speaking = True
        elif token == EOS:
            speaking = False
    return learnt
