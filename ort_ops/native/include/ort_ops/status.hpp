// Statuses of ONNX Runtime as exceptions, and exceptions as statuses: none may leave a callback.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "ort_ops/abi.hpp"

namespace ort_ops {

using Shape = std::vector<std::int64_t>;  // -1 in it: not known

inline std::string to_text(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  return text + (shape.size() == 1 ? ",)" : ")");
}

// What an operator refuses: ONNX Runtime reports the text with the node's name.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& text, int code = abi::kInvalidArgument)
      : std::runtime_error(text), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

namespace detail {
template <typename Part>
void write(std::ostream& to, const Part& part) {
  if constexpr (std::is_same_v<Part, std::int8_t> || std::is_same_v<Part, std::uint8_t>)
    to << static_cast<int>(part);  // else a character, and 0 would end the text
  else
    to << part;
}
inline void write(std::ostream& to, const Shape& shape) { to << to_text(shape); }
}  // namespace detail

// Throws an Error whose text is these parts one after another: texts, numbers, Shape, Dims.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (detail::write(text, parts), ...);
  throw Error(text.str());
}

// Throws what a status says, and releases it.
inline void check(const abi::Api* api, abi::Status* status) {
  if (status == nullptr) return;
  const Error error(abi::GetErrorMessage(api, status), abi::kFail);
  abi::ReleaseStatus(api, status);
  throw error;
}

// Whether a getter found what it was asked for; its status says nothing else.
inline bool present(const abi::Api* api, abi::Status* status) {
  if (status == nullptr) return true;
  abi::ReleaseStatus(api, status);
  return false;
}

// The text that a getter of the form (char*, size_t*) gives, which says its size when it is given no room.
template <typename Get>
std::string read_string(const abi::Api* api, Get get) {
  std::size_t size = 0;
  present(api, get(nullptr, &size));
  std::string text(size, '\0');
  if (size == 0) return text;
  check(api, get(text.data(), &size));
  text.resize(size - 1);  // without the terminating NUL
  return text;
}

namespace detail {
// How many bytes of a text are the character at `at` in UTF-8; 0 where they are none.
inline std::size_t character(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned char>(at + i < text.size() ? text[at + i] : 0);
  };
  const unsigned lead = byte(0), next = byte(1);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xc2 ? 0
                             : lead < 0xe0 ? 2
                             : lead < 0xf0 ? 3
                             : lead < 0xf5 ? 4
                                           : 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // Longer than need be, halves of UTF-16, and beyond the last.
  const bool none = (lead == 0xe0 && next < 0xa0) || (lead == 0xed && next >= 0xa0) ||
                    (lead == 0xf0 && next < 0x90) || (lead == 0xf4 && next >= 0x90);
  return none ? 0 : length;
}

// A text as UTF-8, each byte of what isn't that as "?": Python could make nothing of it.
inline std::string as_utf8(std::string text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = character(text, at);
    if (length == 0) text[at] = '?';
    at += length == 0 ? 1 : length;
  }
  return text;
}

inline const char* what_of(const std::exception& error) {
  return error.what() == nullptr ? "an exception without a text" : error.what();
}
}  // namespace detail

// Runs `body`; whatever it throws becomes a status, whose text begins with what `where` says.
template <typename Body, typename Where>
abi::Status* guarded(const abi::Api* api, Body body, Where where) noexcept {
  const auto status = [&](const char* text, int code = abi::kFail) {
    try {
      return abi::CreateStatus(api, code, detail::as_utf8(where() + text).c_str());
    } catch (...) {
      return abi::CreateStatus(api, code, text);
    }
  };
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    return status(error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return status("out of memory");
  } catch (const std::exception& error) {
    return status(detail::what_of(error));
  } catch (...) {
    return status("an exception that is no std::exception");
  }
}
template <typename Body>
abi::Status* guarded(const abi::Api* api, Body body) noexcept {
  return guarded(api, body, [] { return std::string(); });
}

}  // namespace ort_ops
