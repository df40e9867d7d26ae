// Every field of tables that clients know, and what becomes of it. docs/API.md shows the same; a test
// holds them together.
#include "server/parameters.h"

namespace bise {
namespace {

using R = FieldRule;

#define BISE_COMMON_FIELDS                                                                          \
  {"model", R::obeyed, "a served name"},                                                            \
  {"temperature", R::obeyed, "0 to 2; 0 is greedy"},                                                \
  {"top_p", R::obeyed, "above 0, at most 1"},                                                       \
  {"top_k", R::obeyed, "0 or -1: off"},                                                             \
  {"min_p", R::obeyed, "0 to 1"},                                                                   \
  {"repetition_penalty", R::obeyed, "above 0; over prompt and answer"},                             \
  {"repeat_penalty", R::obeyed, "the same as repetition_penalty"},                                  \
  {"presence_penalty", R::obeyed, "-2 to 2"},                                                       \
  {"frequency_penalty", R::obeyed, "-2 to 2"},                                                      \
  {"logit_bias", R::obeyed, "token id to bias, -100 to 100; at most 4096"},                         \
  {"allowed_token_ids", R::obeyed, "only these may be drawn"},                                      \
  {"bad_words", R::obeyed, "up to 1024 texts whose tokens, with or without a blank in front, may not come in a row"}, \
  {"seed", R::obeyed, "the same seed gives the same answer"},                                       \
  {"random_seed", R::obeyed, "the same as seed"},                                                   \
  {"stop", R::obeyed, "a text or up to 16 of at most 256 characters; searched in the content"},     \
  {"stop_regex", R::obeyed, "a regex or up to 16 of at most 1000 characters; ends where one is first complete"}, \
  {"stop_token_ids", R::obeyed, "up to 256 ids"},                                                   \
  {"include_stop_str_in_output", R::obeyed, "default false"},                                       \
  {"no_stop_trim", R::obeyed, "the same as include_stop_str_in_output"},                            \
  {"ignore_eos", R::obeyed, "default false"},                                                       \
  {"min_tokens", R::obeyed, "no end before so many tokens"},                                        \
  {"max_tokens", R::obeyed, "clamped to what the context leaves, and said so"},                     \
  {"n_predict", R::obeyed, "the same as max_tokens; -1: no limit"},                                 \
  {"n", R::obeyed, "1 to 16"},                                                                      \
  {"stream", R::obeyed, "server-sent events"},                                                      \
  {"stream_options", R::obeyed, "include_usage, continuous_usage_stats; only with stream"},         \
  {"logprob_token_ids", R::obeyed, "up to 256 ids listed behind the most likely ones; needs logprobs"}, \
  {"prompt_logprobs", R::obeyed, "0 to 20; not with stream"},                                       \
  {"response_format", R::obeyed, "text, json_object, json_schema, structural_tag"},                 \
  {"structured_outputs", R::obeyed, "exactly one of json, regex, choice, grammar, json_object, structural_tag; whitespace_pattern, disable_any_whitespace"}, \
  {"structural_tag", R::obeyed, "the same as structured_outputs.structural_tag"},                   \
  {"guided_json", R::obeyed, "the same as structured_outputs.json"},                                \
  {"guided_regex", R::obeyed, "the same as structured_outputs.regex"},                              \
  {"guided_choice", R::obeyed, "the same as structured_outputs.choice"},                            \
  {"guided_grammar", R::obeyed, "the same as structured_outputs.grammar"},                          \
  {"regex", R::obeyed, "the same as structured_outputs.regex"},                                     \
  {"json_schema", R::obeyed, "the same as structured_outputs.json"},                                \
  {"request_id", R::obeyed, "names the request, to cancel it"},                                     \
  {"rid", R::obeyed, "the same as request_id"},                                                     \
  {"cache_salt", R::obeyed, "only requests with the same salt share the prefix cache"},             \
  {"cache_prompt", R::obeyed, "false: the prefix cache is not used"},                               \
  {"return_token_ids", R::obeyed, "token_ids of each choice, prompt_token_ids"},                    \
  {"return_tokens_as_token_ids", R::obeyed, "tokens in logprobs as \"token_id:N\""},                \
  {"truncate_prompt_tokens", R::obeyed, "completions: keep the last so many; -1: the context"},     \
  {"user", R::unused, ""},                                                                          \
  {"metadata", R::unused, ""},                                                                      \
  {"safety_identifier", R::unused, ""},                                                             \
  {"prompt_cache_key", R::unused, "the prefix cache finds what is shared by itself"},               \
  {"prompt_cache_options", R::unused, ""},                                                          \
  {"prompt_cache_retention", R::unused, ""},                                                        \
  {"service_tier", R::unused, ""},                                                                  \
  {"session_id", R::unused, ""},                                                                    \
  {"keep_alive", R::unused, "the model stays loaded"},                                              \
  {"ttl", R::unused, "the model stays loaded"},                                                     \
  {"prediction", R::unused, "a hint for speed only"},                                               \
  {"stream_interval", R::unused, "each token is sent when it is there"},                            \
  {"spaces_between_special_tokens", R::unused, "special tokens are never shown"},                   \
  {"store", R::only_false, "answers are not stored"},                                               \
  {"background", R::only_false, "answers are not stored"},                                          \
  {"skip_special_tokens", R::only_true, "special tokens are never shown"},                          \
  {"use_beam_search", R::only_false, "there is no beam search"},                                    \
  {"length_penalty", R::only_one, "there is no beam search"},                                       \
  {"best_of", R::only_one, "send n"},                                                               \
  {"priority", R::only_zero, "keys share the machine equally"},                                     \
  {"id_slot", R::only_zero, "there are no slots"},                                                  \
  {"n_keep", R::only_zero, "contexts are never shifted"},                                           \
  {"n_probs", R::only_zero, "send logprobs"},                                                       \
  {"typical_p", R::only_one, "send top_p or min_p"},                                                \
  {"top_n_sigma", R::only_zero, "send top_p or min_p"},                                             \
  {"p_less", R::only_false, "send top_p or min_p"},                                                 \
  {"tfs_z", R::only_one, "send top_p or min_p"},                                                    \
  {"xtc_probability", R::only_zero, "send top_p or min_p"},                                         \
  {"xtc_threshold", R::unused, "without xtc_probability it means nothing"},                         \
  {"dry_multiplier", R::only_zero, "send repetition_penalty"},                                      \
  {"dry_base", R::unused, "without dry_multiplier it means nothing"},                               \
  {"dry_allowed_length", R::unused, "without dry_multiplier it means nothing"},                     \
  {"dry_penalty_last_n", R::unused, "without dry_multiplier it means nothing"},                     \
  {"dry_sequence_breakers", R::unused, "without dry_multiplier it means nothing"},                  \
  {"mirostat", R::only_zero, "send top_p or min_p"},                                                \
  {"mirostat_tau", R::unused, "without mirostat it means nothing"},                                 \
  {"mirostat_eta", R::unused, "without mirostat it means nothing"},                                 \
  {"dynatemp_range", R::only_zero, "send temperature"},                                             \
  {"dynatemp_exponent", R::unused, "without dynatemp_range it means nothing"},                      \
  {"repeat_last_n", R::only_zero, "the penalty is over the whole text"},                            \
  {"samplers", R::refused, "the order is fixed: penalties, temperature, top_k, top_p, min_p"},      \
  {"grammar", R::refused, "GBNF is not read; send structured_outputs.grammar (Lark)"},              \
  {"ebnf", R::refused, "send structured_outputs.grammar (Lark)"},                                   \
  {"guided_decoding_backend", R::unused, "there is one: llguidance"},                               \
  {"guided_whitespace_pattern", R::obeyed, "the same as structured_outputs.whitespace_pattern"},    \
  {"timings_per_token", R::only_false, "see /metrics"},                                             \
  {"return_progress", R::only_false, ""},                                                           \
  {"return_hidden_states", R::only_false, ""},                                                      \
  {"return_prompt_text", R::only_false, "send return_token_ids and /detokenize"},                   \
  {"return_tokens", R::only_false, "send return_token_ids"},                                        \
  {"t_max_predict_ms", R::only_zero, "send max_tokens"},                                            \
  {"repetition_detection", R::refused, "send max_tokens or repetition_penalty"},                    \
  {"kv_transfer_params", R::refused, ""},                                                           \
  {"vllm_xargs", R::only_empty, ""},                                                                \
  {"custom_logit_processor", R::refused, ""},                                                       \
  {"lora", R::only_empty, "adapters are not served"},                                               \
  {"lora_path", R::only_empty, "adapters are not served"},                                          \
  {"adapter_path", R::only_empty, "adapters are not served"}

constexpr FieldRow kChat[] = {
    {"messages", R::obeyed, "see the table of messages"},
    {"max_completion_tokens", R::obeyed, "the same as max_tokens; it wins"},
    {"logprobs", R::obeyed, "true or false"},
    {"top_logprobs", R::obeyed, "0 to 20; needs logprobs"},
    {"tools", R::obeyed, "functions; not an empty list"},
    {"tool_choice", R::obeyed, "auto, none, required (any), or one function"},
    {"parallel_tool_calls", R::obeyed, "false: the answer ends after one call"},
    {"reasoning_effort", R::obeyed, "words the model lacks are mapped to none or high, and said so"},
    {"reasoning", R::obeyed, "{effort, max_tokens}: the same as reasoning_effort and thinking_token_budget"},
    {"prompt_mode", R::obeyed, "\"reasoning\": the same as reasoning_effort high"},
    {"chat_template_kwargs", R::obeyed, "reasoning_effort, enable_thinking; others are refused"},
    {"include_reasoning", R::obeyed, "false: reasoning is made but not shown"},
    {"separate_reasoning", R::only_true, "send include_reasoning"},
    {"stream_reasoning", R::only_true, ""},
    {"add_generation_prompt", R::obeyed, "false: the same as continue_final_message"},
    {"continue_final_message", R::obeyed, "the last assistant message is continued"},
    {"echo", R::only_false, "only in /v1/completions"},
    {"add_special_tokens", R::only_false, "the chat format brings its own"},
    {"safe_prompt", R::only_false, "there is no built-in safety prompt"},
    {"truncate_for_context_length", R::only_false, "prompts are never cut"},
    {"thinking_token_budget", R::obeyed, "tokens of reasoning before it is ended; -1: no limit"},
    {"documents", R::only_empty, "write them into a message"},
    {"chat_template", R::refused, "the format of the model is built in"},
    {"media_io_kwargs", R::only_empty, ""},
    {"mm_processor_kwargs", R::only_empty, ""},
    {"verbosity", R::refused, "ask for it in a message"},
    {"modalities", R::obeyed, "only [\"text\"]"},
    {"audio", R::refused, "only text is generated"},
    {"web_search_options", R::refused, "the server searches nothing"},
    {"moderation", R::refused, "the server judges nothing"},
    {"functions", R::refused, "send tools"},
    {"function_call", R::refused, "send tool_choice"},
    {"reasoning_budget", R::obeyed, "the same as thinking_token_budget"},
    {"reasoning_format", R::unused, "reasoning comes in its own fields"},
    {"suffix", R::refused, "this model does not fill in the middle"},
    BISE_COMMON_FIELDS,
};

constexpr FieldRow kCompletions[] = {
    {"prompt", R::obeyed, "a text, token ids, or a list of either (at most 128)"},
    {"echo", R::obeyed, "the prompt in front of the answer"},
    {"logprobs", R::obeyed, "0 to 20"},
    {"add_special_tokens", R::obeyed, "default true: BOS in front of a text, where the model has one"},
    {"suffix", R::only_empty, "this model does not fill in the middle"},
    {"max_completion_tokens", R::obeyed, "the same as max_tokens; it wins"},
    BISE_COMMON_FIELDS,
};

}  // namespace

std::span<const FieldRow> field_table(Endpoint endpoint) {
  if (endpoint == Endpoint::chat) return kChat;
  return kCompletions;
}

}  // namespace bise
