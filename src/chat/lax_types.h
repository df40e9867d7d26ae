// Scalars of a request body as the reference reads them: booleans also from 0, 1 and words such as
// "yes", numbers also from text. Used for strict mode and for the few flags of the chat floor.
#pragma once

#include <optional>

#include "chat/python_json.h"

namespace bise {

std::optional<bool> lax_bool(const PyJson& value);
std::optional<double> lax_number(const PyJson& value);
// The sign of a whole number (-1, 0, 1), however long it is.
std::optional<int> lax_integer_sign(const PyJson& value);

}  // namespace bise
