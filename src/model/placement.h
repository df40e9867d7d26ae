// Which backend computes which part of a model.
#pragma once

#include "backend/backend.h"

namespace bise {

// All of it `main`, or, where that one's memory is too small, the embedding and the first layers its host.
struct Placement {
  Placement() = default;
  Placement(Backend& all) : main(&all) {}  // NOLINT(google-explicit-constructor): the common case
  Placement(Backend& device, int32_t layers_of_host)
      : main(&device), host(layers_of_host > 0 ? device.host() : nullptr), host_layers(layers_of_host) {}

  Backend& of_embedding() const { return host != nullptr ? *host : *main; }
  Backend& of_layer(int32_t index) const { return index < host_layers ? *host : *main; }

  Backend* main = nullptr;  // of the head and the vision tower, too
  Backend* host = nullptr;
  int32_t host_layers = 0;
};

}  // namespace bise
