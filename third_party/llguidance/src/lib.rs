// The C functions of llguidance (llguidance.h) as symbols of a static library.
pub use llguidance::ffi::*;
