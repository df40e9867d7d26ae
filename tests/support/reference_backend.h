// Every op as plain loops over decoded weights with double sums: the slow twin that defines them.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace bise {

std::unique_ptr<Backend> create_reference_backend();

}  // namespace bise
