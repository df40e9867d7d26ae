"""Whether a program was built with a sanitizer, which keeps memory of its own."""


def is_sanitized(program):
    # In pieces: a child that is started counts the peak of this process as its own.
    tail = b""
    with open(program, "rb") as file:
        while piece := file.read(1 << 20):
            if any(mark in tail + piece for mark in (b"__asan_init", b"__tsan_init")):
                return True
            tail = piece[-16:]
    return False
