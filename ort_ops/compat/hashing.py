"""``hash_64``: the hash of onnxruntime-extensions, bit for bit."""

__all__ = ["hash_64"]

_BITS = (1 << 64) - 1
_FACTOR = 0xC6A4A7935BD1E995
_SEED = 0xDECAFCAFFE  # of TensorFlow's Hash64
_FAST_SEED = 0xC70F6907  # of libstdc++'s std::hash


def hash_64(text: str, num_buckets: int, fast: bool) -> int:
    """Return the bucket of a text: a 64-bit hash of its UTF-8, modulo ``num_buckets``.

    Both hashes are MurmurHash64A (A. Appleby, public domain). The fast one is that of libstdc++; the
    other has TensorFlow's seed, and multiplies once more where the length is a multiple of eight.
    """
    if not 1 <= num_buckets <= _BITS:
        raise ValueError(f"hash_64: num_buckets is {num_buckets}; expected 1 to 2**64 - 1")
    data = text.encode()
    return _murmur(data, _FAST_SEED if fast else _SEED, always_tail=not fast) % num_buckets


def _murmur(data: bytes, seed: int, always_tail: bool) -> int:
    whole = len(data) - len(data) % 8
    state = seed ^ (len(data) * _FACTOR & _BITS)
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * _FACTOR & _BITS
        state = (state ^ (_shift(word) * _FACTOR & _BITS)) * _FACTOR & _BITS
    if always_tail or whole < len(data):
        state = (state ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _BITS
    return _shift(_shift(state) * _FACTOR & _BITS)


def _shift(word: int) -> int:
    return word ^ (word >> 47)
