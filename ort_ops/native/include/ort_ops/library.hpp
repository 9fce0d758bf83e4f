// A library's operators as a session takes them: domain by domain, each domain from one library.
#pragma once

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ort_ops/shapes.hpp"
#include "ort_ops/status.hpp"

#if defined(_WIN32)
#define ORT_OPS_EXPORT extern "C" __declspec(dllexport)
#else
#define ORT_OPS_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace ort_ops {

// The API of ONNX Runtime 1.17 and newer; null for an older one, and a status that says so.
inline const abi::Api* find_api(const abi::ApiBase* base, abi::Status** too_old) {
  const auto* api = static_cast<const abi::Api*>(base->GetApi(abi::kApiVersion));
  if (api == nullptr)
    *too_old = abi::CreateStatus(static_cast<const abi::Api*>(base->GetApi(1)), abi::kNotImplemented,
                                 "these operators need ONNX Runtime 1.17 or newer; install a newer one");
  return api;
}

// The 32 of "1.32.0".
inline int minor_of(const char* release) {
  const char* dot = std::strchr(release, '.');
  return dot == nullptr ? 0 : std::atoi(dot + 1);
}

// A session's option, where it is set.
inline std::optional<std::string> config_entry(const abi::Api* api, const abi::SessionOptions* options,
                                               const std::string& key) {
  int has = 0;
  check(api, abi::HasConfigEntry(api, options, key.c_str(), &has));
  if (!has) return std::nullopt;
  return read_string(api, [&](char* text, std::size_t* size) {
    return abi::GetConfigEntry(api, options, key.c_str(), text, size);
  });
}

// Notes in a session's options whose the operators of a domain are. False where they are there already, and
// an Error where they are another's: ONNX Runtime takes a domain once.
inline bool claim_domain(const abi::Api* api, abi::SessionOptions* options, const std::string& domain,
                         const std::string& owner) {
  const std::string key = "ort_ops.domain." + domain;
  const std::optional<std::string> other = config_entry(api, options, key);
  if (other == owner) return false;
  if (other)
    fail("the operators of domain \"", domain, "\" are in this session from ", *other, "; ", owner,
         " has operators of that domain, too, and ONNX Runtime takes a domain from one library: register one "
         "of "
         "the two");
  check(api, abi::AddConfigEntry(api, options, key.c_str(), owner.c_str()));
  return true;
}

namespace detail {

// What the shape function of an operator's structs threw, of which ONNX Runtime asks the first alone: said
// where a kernel of theirs is made, by the thread that makes the session.
class InferError {
 public:
  void keep(const std::string& name, const char* text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    texts_[std::this_thread::get_id()] = name + ": its infer function failed: " + text;
  }
  void raise() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = texts_.extract(std::this_thread::get_id());
    if (!found.empty()) throw Error(found.mapped());
  }
  // Of a session that failed before it made that kernel, or had no need of it.
  void forget() {
    const std::lock_guard<std::mutex> lock(mutex_);
    texts_.erase(std::this_thread::get_id());
  }

 private:
  std::mutex mutex_;
  std::map<std::thread::id, std::string> texts_;
};

// An operator as one ONNX Runtime sees it. Never destroyed: sessions keep the address, and nobody says when
// the last of them is gone.
struct Registration {
  abi::CustomOp callbacks;  // first, so that the pointer ONNX Runtime hands back is the Registration's
  const abi::Api* api;
  int minor_release;
  std::string name;
  std::vector<ElementTypes> overloads;  // of all structs of this name
  InferError* infer_error;              // theirs

  static const Registration& of(const abi::CustomOp* op) {
    return *reinterpret_cast<const Registration*>(op);
  }
};

struct Entry {
  std::string domain, name;
  std::string form;  // what structs of one name have in common
  ElementTypes types;
  abi::CustomOp callbacks;
};

template <typename Op>
Entry entry_of(const char* library_domain);

class Library {
 public:
  template <typename... Ops>
  static const Library* make(const char* domain, const void* here) {
    return new Library({entry_of<Ops>(domain)...}, here);
  }

  abi::Status* add_to(abi::SessionOptions* options, const abi::ApiBase* base) const noexcept {
    abi::Status* too_old = nullptr;
    const abi::Api* api = find_api(base, &too_old);
    if (api == nullptr) return too_old;
    return guarded(api, [&] {
      const std::lock_guard<std::mutex> lock(mutex_);
      check_forms();
      for (const auto& [name, domain] : domains_for(api, minor_of(base->GetVersionString())))
        if (claim_domain(api, options, name, path())) {
          note_operators(api, options, name);
          check(api, abi::AddCustomOpDomain(api, options, domain));
        }
      note_library(api, options);
    });
  }

 private:
  using Domains = std::map<std::string, abi::CustomOpDomain*>;

  // here: an address in the library; that of a variable in this header might be another's.
  Library(std::vector<Entry> entries, const void* here) : entries_(std::move(entries)), here_(here) {
    stay_loaded();
  }

  // ONNX Runtime unloads a library with the last session that has it, and loads it anew for the next, and
  // what is never destroyed (Registration) would be made anew each time. Not on Windows.
  void stay_loaded() const {
#if !defined(_WIN32)
    Dl_info info{};
    if (dladdr(here_, &info) != 0 && info.dli_fname != nullptr)
      dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#endif
  }

  // ONNX Runtime tells structs of one name apart by their element types and providers alone, by no version.
  void check_forms() const {
    std::map<std::pair<std::string, std::string>, std::string> forms;
    for (const Entry& entry : entries_) {
      const std::string& form = forms.try_emplace({entry.domain, entry.name}, entry.form).first->second;
      if (form != entry.form)
        fail("the structs of operator \"", entry.name, "\" of domain \"", entry.domain, "\" are ", form,
             " and ", entry.form, "; expected them to differ in element types and provider alone");
    }
  }

  // The domains as one ONNX Runtime sees them: a process may have two.
  const Domains& domains_for(const abi::Api* api, int minor_release) const {
    const auto found = made_.find(api);
    if (found != made_.end()) return found->second;
    Domains domains;
    std::map<std::pair<std::string, std::string>, InferError*> errors;
    for (const Entry& entry : entries_) {
      abi::CustomOpDomain*& domain = domains[entry.domain];
      if (domain == nullptr) check(api, abi::CreateCustomOpDomain(api, entry.domain.c_str(), &domain));
      InferError*& error = errors[{entry.domain, entry.name}];
      if (error == nullptr) error = new InferError();
      auto* registration =
          new Registration{entry.callbacks, api, minor_release, entry.name, overloads_of(entry), error};
      // Before 1.24 it reads the type of every input for shapes, and of one that is left out there is none.
      if (minor_release < 24 && entry.types.optional_inputs)
        registration->callbacks.InferOutputShapeFn = nullptr;
      check(api, abi::CustomOpDomainAdd(api, domain, &registration->callbacks));
    }
    return made_[api] = std::move(domains);
  }

  // Notes in a session's options which operators are in a domain: in entries of less than 2,048 characters,
  // as ONNX Runtime takes them.
  void note_operators(const abi::Api* api, abi::SessionOptions* options, const std::string& domain) const {
    std::set<std::string> names;
    for (const Entry& entry : entries_)
      if (entry.domain == domain) names.insert(entry.name);
    std::vector<std::string> texts;
    for (const std::string& name : names) {
      if (texts.empty() || texts.back().size() + name.size() > 2000)
        texts.push_back(name);
      else
        texts.back() += "," + name;
    }
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const std::string key = "ort_ops.operators" + (i == 0 ? "" : std::to_string(i)) + "." + domain;
      check(api, abi::AddConfigEntry(api, options, key.c_str(), texts[i].c_str()));
    }
  }

  // Notes in a session's options that this library has said what is in it.
  void note_library(const abi::Api* api, abi::SessionOptions* options) const {
    for (int number = 1;; ++number) {
      const std::string key = "ort_ops.library" + std::to_string(number);
      if (config_entry(api, options, key)) continue;
      return check(api, abi::AddConfigEntry(api, options, key.c_str(), path().c_str()));
    }
  }

  std::vector<ElementTypes> overloads_of(const Entry& entry) const {
    std::vector<ElementTypes> found;
    for (const Entry& each : entries_)
      if (each.domain == entry.domain && each.name == entry.name) found.push_back(each.types);
    return found;
  }

  // Where this library is: its file, or, where that isn't known, an address in it, which no other has.
  std::string path() const {
#if !defined(_WIN32)
    Dl_info info{};
    if (dladdr(here_, &info) != 0 && info.dli_fname != nullptr) return info.dli_fname;
#endif
    std::ostringstream text;
    text << "a library of custom operators at " << here_;
    return text.str();
  }

  std::vector<Entry> entries_;
  const void* here_;
  mutable std::mutex mutex_;
  mutable std::map<const abi::Api*, Domains> made_;
};

}  // namespace detail
}  // namespace ort_ops
