// ImageFetcher: pictures that a request names by http or https, fetched for it. Who may write requests
// chooses the URLs, so each is held to the operator's list of hosts, its connection to the addresses that
// may be reached (address_rules), and everything to limits: bytes, time, redirects, downloads at once.
//
//   hosts       only those of `domains`, on ports 80 and 443 or the port named with the host
//   addresses   public ones and those of `networks`; judged at the socket, for every attempt to connect,
//               so that a name that resolves differently the second time gains nothing
//   redirects   at most 3, each held to the same rules; none from https to http
//   proxies, cookies, credentials, compression, other protocols: none
//
// The thread of the request waits; it wakes when its client goes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chat/image_url.h"
#include "server/address_rules.h"
#include "server/api_error.h"
#include "server/http.h"

namespace bise {

constexpr uint64_t kMaxImageBytes = uint64_t{20} << 20;  // of one picture, however it comes

struct ImageFetchOptions {
  // "host", "host:port", "*.host" (what stands below host) or "*". Empty: nothing is fetched.
  std::vector<std::string> domains;
  std::vector<std::string> networks;  // beside the public addresses: "10.0.0.0/8"
  std::string ca_file;                // PEM, in place of the system's authorities
  double timeout_s = 15;              // of all pictures of one request together
  uint64_t max_image_bytes = kMaxImageBytes;
  uint64_t max_request_bytes = uint64_t{64} << 20;  // of one request, each picture as often as it is named
  uint64_t max_total_bytes = uint64_t{1} << 30;     // of all requests at the same time
  int32_t max_requests = 64;                        // that fetch at the same time
};

class ImageFetcher {
 public:
  // Error: a domain or network that is none, an unreadable ca_file.
  static Result<std::unique_ptr<ImageFetcher>> create(ImageFetchOptions options);

  // The pictures of one request, while they are needed: their bytes count until this goes.
  class Fetched {
   public:
    Fetched() = default;
    Fetched(Fetched&& other) noexcept;
    Fetched& operator=(Fetched&&) = delete;
    ~Fetched();
    const FetchedImages& images() const { return images_; }

   private:
    friend class ImageFetcher;
    FetchedImages images_;
    const ImageFetcher* owner_ = nullptr;
    uint64_t counted_ = 0;
  };
  // From any thread, which waits. Either all or, with the first fault, none. The fetcher must outlive
  // what it returns.
  ApiResult<Fetched> fetch(const std::vector<RemoteImage>& images, HttpReply& reply) const;

 private:
  struct Domain {
    std::string host;   // lower case; "" any
    bool below = false; // what stands below the host
    int port = 0;       // 0: 80 and 443
  };
  struct Transfer;
  explicit ImageFetcher(ImageFetchOptions options) : options_(std::move(options)) {}
  static Result<Domain> parse_domain(const std::string& text);
  bool may_ask(const std::string& host, int port) const;
  bool may_connect(const IpAddress& address) const;
  bool count(Fetched& fetched, uint64_t bytes) const;

  ImageFetchOptions options_;
  std::vector<Domain> domains_;
  std::vector<IpNetwork> networks_;
  mutable std::atomic<uint64_t> held_bytes_{0};
  mutable std::atomic<int32_t> requests_{0};
};

}  // namespace bise
