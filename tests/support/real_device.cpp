#include "support/device_failures.h"

namespace bise::test {

bool device_fails_on_demand() { return false; }
void fail_device(int) {}
void fail_device_allocation(int) {}

}  // namespace bise::test
