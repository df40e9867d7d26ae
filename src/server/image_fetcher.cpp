#include "server/image_fetcher.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>

#include "base/file.h"

namespace bise {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kMaxRedirects = 3;
constexpr long kMaxConnections = 8, kMaxHostConnections = 4, kConnectMs = 5000;
constexpr size_t kMaxUrl = 4096;

struct FreeCurl {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, FreeCurl>;
using Url = std::unique_ptr<CURLU, FreeCurl>;
using Headers = std::unique_ptr<curl_slist, FreeCurl>;

// One part of a URL; empty when it has none.
std::string part_of(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK) return "";
  std::string out = text;
  curl_free(text);
  return out;
}

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return text;
}

std::optional<IpAddress> ip_address(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, &address, sizeof in);
    uint8_t bytes[4];
    std::memcpy(bytes, &in.sin_addr, sizeof bytes);
    return from_ipv4(bytes);
  }
  if (address.sa_family != AF_INET6) return std::nullopt;
  sockaddr_in6 in;
  std::memcpy(&in, &address, sizeof in);
  IpAddress out;
  std::memcpy(out.data(), &in.sin6_addr, out.size());
  return out;
}

// Something a picture is sent as. What the bytes really are, their decoder decides.
bool may_be_picture(const char* content_type) {
  if (content_type == nullptr) return true;
  const std::string type = lower(content_type);
  return type.starts_with("image/") || type.starts_with("application/octet-stream") || type.starts_with("binary/octet-stream");
}

// The loop of one request, woken from the thread of the network; which may come late.
struct Loop {
  std::mutex mutex;
  CURLM* multi = nullptr;
  ~Loop() { curl_multi_cleanup(multi); }
  void wake() {
    std::lock_guard lock(mutex);
    if (multi != nullptr) curl_multi_wakeup(multi);
  }
  void close() {
    std::lock_guard lock(mutex);
    curl_multi_cleanup(multi);
    multi = nullptr;
  }
};

}  // namespace

// One picture on its way. A fault is for the client.
struct ImageFetcher::Transfer {
  const ImageFetcher& fetcher;
  Fetched& fetched;
  const RemoteImage& image;
  uint64_t times_named = 1;
  Easy easy;
  Url url;
  std::string bytes, fault, host;
  bool busy = false, address_refused = false, body_skipped = false, done = false;
  int redirects = 0;

  Transfer(const ImageFetcher& f, Fetched& into, const RemoteImage& i) : fetcher(f), fetched(into), image(i), easy(curl_easy_init()) {}

  static size_t take(char* data, size_t size, size_t count, void* self) { return static_cast<Transfer*>(self)->add({data, size * count}); }
  static curl_socket_t open_socket(void* self, curlsocktype, curl_sockaddr* address) {
    return static_cast<Transfer*>(self)->open(*address);
  }

  size_t add(std::string_view data) {
    long status = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
      body_skipped = true;  // ends the transfer: what an error page says is not read
      return 0;
    }
    if (bytes.size() + data.size() > fetcher.options_.max_image_bytes) {
      fault = "the picture is larger than " + std::to_string(fetcher.options_.max_image_bytes) + " bytes";
      return 0;
    }
    if (fetched.counted_ + data.size() * times_named > fetcher.options_.max_request_bytes) {
      fault = "the pictures of one request may have " + std::to_string(fetcher.options_.max_request_bytes) + " bytes together";
      return 0;
    }
    if (!fetcher.count(fetched, data.size() * times_named)) {
      busy = true;
      fault = "too many pictures are being fetched at the moment";
      return 0;
    }
    bytes += data;
    return data.size();
  }

  curl_socket_t open(const curl_sockaddr& address) {
    const std::optional<IpAddress> ip = ip_address(address.addr);
    if (!ip || !fetcher.may_connect(*ip)) {
      address_refused = true;
      return CURL_SOCKET_BAD;
    }
    return ::socket(address.family, address.socktype | SOCK_CLOEXEC, address.protocol);
  }

  // Takes the URL when the rules allow it.
  bool set_url(const std::string& text, bool from_https) {
    constexpr unsigned kFlags = CURLU_DISALLOW_USER;
    url.reset(curl_url());
    if (text.size() > kMaxUrl || !url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), kFlags) != CURLUE_OK) {
      fault = "the URL is malformed, too long, or has a user name in it";
      return false;
    }
    const std::string scheme = part_of(url.get(), CURLUPART_SCHEME);
    if (scheme != "https" && (scheme != "http" || from_https)) {
      fault = from_https ? "it is redirected from https to " + scheme : "only http and https are fetched";
      return false;
    }
    host = lower(part_of(url.get(), CURLUPART_HOST));
    if (host.ends_with('.')) host.pop_back();
    const std::string port = part_of(url.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
    int number = 0;
    std::from_chars(port.data(), port.data() + port.size(), number);
    if (!fetcher.may_ask(host, number)) {
      fault = "pictures of " + host.substr(0, 200) + " (port " + port + ") are not fetched here; see --allowed-media-domains";
      return false;
    }
    return true;
  }

  void prepare(curl_slist* headers) {
    CURL* e = easy.get();
    curl_easy_setopt(e, CURLOPT_CURLU, url.get());
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);  // each step is judged here
    curl_easy_setopt(e, CURLOPT_PROXY, "");           // none, whatever the environment says
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);  // a name server that does not answer holds nobody
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs);
    curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(fetcher.options_.max_image_bytes));
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, &open_socket);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, this);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, &take);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(e, CURLOPT_PRIVATE, this);
    if (!fetcher.options_.ca_file.empty()) curl_easy_setopt(e, CURLOPT_CAINFO, fetcher.options_.ca_file.c_str());
  }

  // After one answer: done, a fault, or (true) the next step of a redirect.
  bool next_step(CURLcode code) {
    if (!fault.empty()) return false;
    if (body_skipped) code = CURLE_OK;
    if (code == CURLE_FILESIZE_EXCEEDED) {
      fault = "the picture is larger than " + std::to_string(fetcher.options_.max_image_bytes) + " bytes";
    } else if (code != CURLE_OK) {
      // What stands behind a refused address is nobody's business: one message for all of them.
      fault = address_refused ? host + " has no address that may be reached from here; see --allowed-media-networks"
                              : std::string(curl_easy_strerror(code));
    }
    if (!fault.empty()) return false;
    long status = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
    char* target = nullptr;
    curl_easy_getinfo(easy.get(), CURLINFO_REDIRECT_URL, &target);
    if (status >= 300 && status < 400 && target != nullptr) {
      if (++redirects > kMaxRedirects) {
        fault = "it is redirected more than " + std::to_string(kMaxRedirects) + " times";
        return false;
      }
      const std::string to = target;
      const bool from_https = part_of(url.get(), CURLUPART_SCHEME) == "https";
      address_refused = body_skipped = false;
      return set_url(to, from_https);
    }
    char* content_type = nullptr;
    curl_easy_getinfo(easy.get(), CURLINFO_CONTENT_TYPE, &content_type);
    if (status != 200) {
      fault = host + " answers with status " + std::to_string(status);
    } else if (!may_be_picture(content_type)) {
      fault = host + " sends no picture, but " + std::string(content_type).substr(0, 100);
    }
    done = fault.empty();
    return false;
  }

  ApiError error() const {
    ApiError out = ApiError::invalid(image.place, image.place + ": the picture cannot be fetched: " + fault, "invalid_image_url");
    if (!busy) return out;
    out.status = 503;
    out.type = "server_error";
    out.code = "overloaded";
    out.retry_after_s = 5;
    return out;
  }
};

// --- what is allowed ----------------------------------------------------------------------------------

Result<ImageFetcher::Domain> ImageFetcher::parse_domain(const std::string& text) {
  const Error fault(ErrorCode::invalid_argument, "\"" + text.substr(0, 100) + "\" is no domain; expected a host, host:port, *.host or *");
  Domain out;
  std::string host = lower(text);
  // The colon of a port; an IPv6 address stands in brackets.
  const size_t colon = host.rfind(':');
  if (colon != std::string::npos && (host.find(']') == std::string::npos || colon > host.find(']'))) {
    const char* end = host.data() + host.size();
    const auto read = std::from_chars(host.data() + colon + 1, end, out.port);
    if (read.ec != std::errc() || read.ptr != end || out.port < 1 || out.port > 65535) return fault;
    host.resize(colon);
  }
  if (host == "*") return out;
  if (host.starts_with("*.")) {
    out.below = true;
    host.erase(0, 1);
  }
  if (host.ends_with('.')) host.pop_back();
  if (host.empty() || host == "." || host.find_first_of("*/@ ?#") != std::string::npos) return fault;
  out.host = std::move(host);
  return out;
}

Result<std::unique_ptr<ImageFetcher>> ImageFetcher::create(ImageFetchOptions options) {
  std::unique_ptr<ImageFetcher> self(new ImageFetcher(std::move(options)));
  for (const std::string& text : self->options_.domains) self->domains_.push_back(TRY(parse_domain(text)));
  for (const std::string& text : self->options_.networks) self->networks_.push_back(TRY(parse_network(text)));
  if (!self->options_.ca_file.empty()) TRY(read_file(self->options_.ca_file, uint64_t{16} << 20));
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return Error(ErrorCode::internal, "libcurl cannot begin");
  return self;
}

bool ImageFetcher::may_ask(const std::string& host, int port) const {
  return std::any_of(domains_.begin(), domains_.end(), [&](const Domain& domain) {
    if (domain.port != 0 ? port != domain.port : port != 80 && port != 443) return false;
    if (domain.host.empty()) return true;
    return domain.below ? host.size() > domain.host.size() && host.ends_with(domain.host) : host == domain.host;
  });
}

bool ImageFetcher::may_connect(const IpAddress& address) const {
  return is_public_address(address) ||
         std::any_of(networks_.begin(), networks_.end(), [&](const IpNetwork& network) { return network.contains(address); });
}

bool ImageFetcher::count(Fetched& fetched, uint64_t bytes) const {
  if (held_bytes_.fetch_add(bytes) + bytes > options_.max_total_bytes) {
    held_bytes_.fetch_sub(bytes);
    return false;
  }
  fetched.counted_ += bytes;
  return true;
}

ImageFetcher::Fetched::Fetched(Fetched&& other) noexcept
    : images_(std::move(other.images_)), owner_(std::exchange(other.owner_, nullptr)), counted_(std::exchange(other.counted_, 0)) {}

ImageFetcher::Fetched::~Fetched() {
  if (owner_ != nullptr) owner_->held_bytes_.fetch_sub(counted_);
}

// --- the downloads ------------------------------------------------------------------------------------

ApiResult<ImageFetcher::Fetched> ImageFetcher::fetch(const std::vector<RemoteImage>& images, HttpReply& reply) const {
  Fetched fetched;
  fetched.owner_ = this;
  std::vector<std::unique_ptr<Transfer>> transfers;
  for (const RemoteImage& image : images) {
    auto same = std::find_if(transfers.begin(), transfers.end(), [&](const auto& t) { return t->image.url == image.url; });
    if (same != transfers.end()) {
      ++(*same)->times_named;
      continue;
    }
    transfers.push_back(std::make_unique<Transfer>(*this, fetched, image));
    if (!transfers.back()->set_url(image.url, false)) return transfers.back()->error();
  }
  struct Place {
    std::atomic<int32_t>& count;
    const int32_t before;
    ~Place() { count.fetch_sub(1); }
  } place{requests_, requests_.fetch_add(1)};
  auto loop = std::make_shared<Loop>();
  loop->multi = curl_multi_init();
  const Headers headers(curl_slist_append(nullptr, "Accept: image/*"));
  if (place.before >= options_.max_requests || loop->multi == nullptr || !headers) {
    Transfer& first = *transfers.at(0);
    first.busy = true;
    first.fault = "too many pictures are being fetched at the moment";
    return first.error();
  }
  curl_multi_setopt(loop->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, kMaxConnections);
  curl_multi_setopt(loop->multi, CURLMOPT_MAX_HOST_CONNECTIONS, kMaxHostConnections);
  reply.when_gone([loop] { loop->wake(); });

  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.timeout_s));
  Transfer* failed = nullptr;
  size_t left = transfers.size();
  for (const auto& transfer : transfers) {
    transfer->prepare(headers.get());
    curl_multi_add_handle(loop->multi, transfer->easy.get());
  }
  while (left > 0 && failed == nullptr && !reply.client_gone()) {
    int running = 0;
    curl_multi_perform(loop->multi, &running);
    int queued = 0;
    while (const CURLMsg* message = curl_multi_info_read(loop->multi, &queued)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      Transfer* transfer = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
      curl_multi_remove_handle(loop->multi, transfer->easy.get());
      if (transfer->next_step(code)) {
        transfer->prepare(headers.get());
        curl_multi_add_handle(loop->multi, transfer->easy.get());
      } else {
        --left;
        if (!transfer->done && failed == nullptr) failed = transfer;
      }
    }
    if (left == 0 || failed != nullptr) break;
    const auto patience = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (patience <= 0) {
      failed = std::find_if(transfers.begin(), transfers.end(), [](const auto& t) { return !t->done; })->get();
      failed->fault = "it takes longer than " + std::to_string(static_cast<int64_t>(options_.timeout_s * 1000)) + " ms";
      break;
    }
    curl_multi_poll(loop->multi, nullptr, 0, static_cast<int>(std::min<int64_t>(patience + 1, 1000)), nullptr);
  }
  for (const auto& transfer : transfers) curl_multi_remove_handle(loop->multi, transfer->easy.get());
  loop->close();
  if (failed != nullptr) return failed->error();
  if (left > 0) return ApiError::from(Error(ErrorCode::cancelled, "the client is gone"));
  for (const auto& transfer : transfers) fetched.images_[transfer->image.url] = std::move(transfer->bytes);
  return fetched;
}

}  // namespace bise
