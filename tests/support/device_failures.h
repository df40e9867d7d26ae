// A GPU that fails when a test wants it to: the emulated one does (emulated_device.cpp).
#pragma once

namespace bise::test {

// False: the device is a real one and does as it likes.
bool device_fails_on_demand();
// The next `count` times that somebody waits for the device, it has failed. Negative: from now on; 0: no more.
void fail_device(int count);
// Of the allocations to come on the device, the one after `skip` others fails, once. Negative: none does.
void fail_device_allocation(int skip);

}  // namespace bise::test
