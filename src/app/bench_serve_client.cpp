#include "app/bench_serve_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>

#include "app/terminal.h"

namespace bise {
namespace {

using Clock = std::chrono::steady_clock;

struct FreeEasy {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct FreeMulti {
  void operator()(CURLM* handle) const { curl_multi_cleanup(handle); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, FreeEasy>;
using Headers = std::unique_ptr<curl_slist, FreeList>;

Error failure(const std::string& text) { return Error(ErrorCode::io, text); }

Headers header_list(const ServeClientOptions& options) {
  curl_slist* list = nullptr;
  for (const std::string& header : options.headers) list = curl_slist_append(list, header.c_str());
  return Headers(curl_slist_append(list, "Expect:"));  // no waiting for 100 Continue
}

void set_common(CURL* easy, const std::string& url, const ServeClientOptions& options, curl_slist* headers) {
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout_s * 1e3));
  if (options.insecure) {
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
}

// One request while its answer comes.
class Exchange {
 public:
  Exchange(const ServeRequest& request, ServeSample& sample, Clock::time_point begin)
      : sample_(sample), begin_(begin), sent_(Clock::now()), last_(sent_), easy_(curl_easy_init()) {
    sample_.start = seconds(begin_, sent_);
    sample_.queue_seconds = std::max(0.0, sample_.start - request.due);
    sample_.prompt_tokens = request.prompt_tokens;
  }
  CURL* easy() const { return easy_.get(); }

  static size_t take(char* bytes, size_t size, size_t count, void* self) {
    static_cast<Exchange*>(self)->read(std::string_view(bytes, size * count));
    return size * count;
  }

  void finish(CURLcode code) {
    long status = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK) {
      sample_.error = curl_easy_strerror(code);
    } else if (status != 200) {
      sample_.error = "status " + std::to_string(status) + ": " + body_.substr(0, 300);
    } else if (fault_.empty() && chunks_ == 0) {
      sample_.error = "no chunk with a choice came";
    } else {
      sample_.error = fault_;
    }
    sample_.ok = sample_.error.empty();
    sample_.latency = seconds(sent_, last_);
    if (sample_.output_tokens == 0) sample_.output_tokens = chunks_;  // a server that tells no usage
  }

 private:
  static double seconds(Clock::time_point from, Clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

  void read(std::string_view bytes) {
    const auto now = Clock::now();
    if (body_.size() < 300) body_.append(bytes.substr(0, 300));
    line_ += bytes;
    size_t from = 0;
    for (size_t end; (end = line_.find('\n', from)) != std::string::npos; from = end + 1) {
      std::string_view line(line_.data() + from, end - from);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.starts_with("data:")) event(line.substr(line.starts_with("data: ") ? 6 : 5), now);
    }
    line_.erase(0, from);
  }

  void event(std::string_view data, Clock::time_point now) {
    if (data == "[DONE]") return;
    Result<Json> parsed = parse_json(data);
    if (!parsed || !parsed->is_object()) {
      fault_ = "an event is no JSON object";
      return;
    }
    const Json& chunk = *parsed;
    if (chunk.contains("error")) fault_ = chunk["error"].dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 300);
    if (auto usage = chunk.find("usage"); usage != chunk.end() && usage->is_object()) {
      sample_.prompt_tokens = usage->value("prompt_tokens", sample_.prompt_tokens);
      sample_.output_tokens = usage->value("completion_tokens", sample_.output_tokens);
    }
    auto choices = chunk.find("choices");
    if (choices == chunk.end() || !choices->is_array() || choices->empty()) return;
    if (chunks_++ == 0) sample_.ttft = seconds(sent_, now);
    else sample_.gaps.push_back(seconds(last_, now));
    last_ = now;
    const Json& choice = (*choices)[0];
    if (!choice.is_object()) return;
    const Json& holder = choice.contains("delta") ? choice["delta"] : choice;
    for (const char* name : {"content", "reasoning_content", "text"}) {
      if (auto text = holder.find(name); holder.is_object() && text != holder.end() && text->is_string()) sample_.text += text->get<std::string>();
    }
  }

  ServeSample& sample_;
  Clock::time_point begin_, sent_, last_;
  Easy easy_;
  std::string line_, body_, fault_;
  int64_t chunks_ = 0;
};

}  // namespace

Result<std::string> http_get(const std::string& url, const ServeClientOptions& options) {
  Easy easy(curl_easy_init());
  const Headers headers = header_list(options);
  if (!easy || !headers) return failure("libcurl cannot begin");
  std::string body;
  auto take = [](char* bytes, size_t size, size_t count, void* out) -> size_t {
    auto* text = static_cast<std::string*>(out);
    if (text->size() + size * count > (size_t{64} << 20)) return 0;
    text->append(bytes, size * count);
    return size * count;
  };
  set_common(easy.get(), url, options, headers.get());
  curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, static_cast<curl_write_callback>(take));
  curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &body);
  const CURLcode code = curl_easy_perform(easy.get());
  if (code != CURLE_OK) return failure(url + ": " + curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) return failure(url + " answers with status " + std::to_string(status) + ": " + body.substr(0, 300));
  return body;
}

Result<ServeRun> run_serve_load(const std::vector<ServeRequest>& requests, const ServeClientOptions& options) {
  std::unique_ptr<CURLM, FreeMulti> multi(curl_multi_init());
  const Headers headers = header_list(options);
  if (!multi || !headers) return failure("libcurl cannot begin");
  ServeRun run;
  run.samples.resize(requests.size());
  std::vector<std::unique_ptr<Exchange>> exchanges(requests.size());
  const auto begin = Clock::now();
  auto now = [begin] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  const size_t places = options.max_concurrency > 0 ? static_cast<size_t>(options.max_concurrency) : requests.size();
  curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, static_cast<long>(std::min<size_t>(places, 1 << 16)));
  size_t next = 0, running = 0;
  while ((next < requests.size() || running > 0) && !interrupted()) {
    while (next < requests.size() && running < places && requests[next].due <= now()) {
      exchanges[next] = std::make_unique<Exchange>(requests[next], run.samples[next], begin);
      CURL* easy = exchanges[next]->easy();
      if (easy == nullptr) return failure("libcurl cannot begin");
      set_common(easy, options.url, options, headers.get());
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, requests[next].body.c_str());
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(requests[next].body.size()));
      curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Exchange::take);
      curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchanges[next].get());
      curl_easy_setopt(easy, CURLOPT_PRIVATE, exchanges[next].get());
      curl_multi_add_handle(multi.get(), easy);
      ++next, ++running;
    }
    int handles = 0;
    if (curl_multi_perform(multi.get(), &handles) != CURLM_OK) return failure("libcurl cannot go on");
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      Exchange* exchange = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &exchange);
      exchange->finish(message->data.result);
      curl_multi_remove_handle(multi.get(), exchange->easy());
      --running;
      auto place = std::find_if(exchanges.begin(), exchanges.end(), [exchange](const auto& e) { return e.get() == exchange; });
      place->reset();
    }
    int wait_ms = 100;
    if (next < requests.size() && running < places) {
      wait_ms = static_cast<int>(std::clamp((requests[next].due - now()) * 1e3, 0.0, 100.0));
    }
    curl_multi_poll(multi.get(), nullptr, 0, wait_ms, nullptr);
  }
  run.duration = now();
  for (size_t i = 0; i < exchanges.size(); ++i) {
    if (exchanges[i]) curl_multi_remove_handle(multi.get(), exchanges[i]->easy());
    if (exchanges[i] || i >= next) run.samples[i].error = "interrupted";
  }
  return run;
}

}  // namespace bise
