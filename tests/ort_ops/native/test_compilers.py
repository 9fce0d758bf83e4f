"""What compilers say of operators on <ort_ops/op.hpp>: of right ones nothing, of wrong ones a clear line."""

import shutil
import subprocess
from pathlib import Path

import pytest

import ort_ops

from .build import run

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "examples"
WARNINGS = (*("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion"), "-Werror")


def compiler(name: str) -> tuple[str, ...]:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing")
    return found, f"-I{ort_ops.get_include()}"


@pytest.mark.parametrize("name", ["g++", "clang++"])
@pytest.mark.parametrize("standard", ["c++17", "c++20"])
def test_operators_compile_without_a_warning(name: str, standard: str) -> None:
    for source in (HERE / "operators.cpp", EXAMPLES / "cpp_operator" / "softshrink.cpp"):
        run(*compiler(name), f"-std={standard}", *WARNINGS, "-fsyntax-only", source)


PROGRAM = """
#include <ort_ops/op.hpp>
using ort_ops::Dims;
static_assert(!std::is_constructible_v<Dims, std::size_t>, "a count of dimensions");
template <typename T> std::size_t in_a_template(T n) { return Dims{3}.size() * Dims{n}.size(); }
int main() { return in_a_template(std::int64_t{5}) == 1 && Dims{3, 4}.size() == 2 ? 0 : 1; }
"""


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_one_dimension_is_one_in_templates_too(name: str, tmp_path: Path) -> None:
    source = tmp_path / "program.cpp"
    source.write_text(PROGRAM)
    run(*compiler(name), "-std=c++17", source, "-o", tmp_path / "program")
    subprocess.run([tmp_path / "program"], check=True)


# What somebody writes instead of Scale's constructor, or its compute, and what is said of it.
WRONG = [
    ('explicit Op(const Node& node) { node.attribute("n", 1); }', "a default of std::int64_t{1}"),
    ('explicit Op(const Node& node) { node.attribute<std::vector<int>>("n"); }', "node.attribute reads"),
    ("void compute(Input<long double>, Output<float>) const {}", "element types are Any, bool, float"),
    ("void compute(Inputs<float>, Input<float>, Output<float>) const {}", "Inputs<T> are compute's last"),
    ("void compute(Input<float>, Output<float>&) const {}", "by value or by const reference"),
    ("void compute(Input<float>, Output<float>) {}", "compute is a const method that returns void"),
    ("void compute(Input<float>, int, Output<float>) const {}", "compute takes Input<T>"),
    (
        "void compute(const Context& context, Output<float>) const { context.scratch<std::string>(1); }",
        "scratch is memory alone",
    ),
]


@pytest.mark.parametrize("name", ["g++", "clang++"])
@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_what_is_wrong_is_said(name: str, wrong: str, said: str, tmp_path: Path) -> None:
    right = "" if "compute(" in wrong else "void compute(Input<float>, Output<float>) const {}"
    source = tmp_path / "wrong.cpp"
    source.write_text(
        "#include <ort_ops/op.hpp>\nusing namespace ort_ops;\n"
        f'struct Op {{ static constexpr const char* name = "Op"; {wrong} {right} }};\n'
        'ORT_OPS_LIBRARY("test", Op)\n'
    )
    command = [*compiler(name), "-std=c++17", "-fsyntax-only", source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    (first, *_) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert said in first


def test_the_macros_of_windows_do_no_harm(tmp_path: Path) -> None:
    before = "algorithm array limits map memory mutex optional set sstream string_view thread variant vector"
    source = tmp_path / "windows.cpp"
    source.write_text(
        "".join(f"#include <{each}>\n" for each in before.split())
        + "#define min(a, b) ((a) < (b) ? (a) : (b))\n#define max(a, b) ((a) > (b) ? (a) : (b))\n"
        + (EXAMPLES / "cpp_operator" / "softshrink.cpp").read_text()
    )
    run(*compiler("g++"), "-std=c++17", "-fsyntax-only", source)
