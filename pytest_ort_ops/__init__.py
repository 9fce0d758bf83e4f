"""The pytest plug-in: its options, and the fixture ``parity`` (see ``ort_ops.pytest_plugin``).

Pytest loads it wherever this is installed, at every start. So it is a package of its own, and light:
``ort_ops`` is loaded by the first test that asks for the fixture, and only such a test fails where there is
no ONNX Runtime.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ort_ops.pytest_plugin import Parity


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plug-in's settings and options."""
    parser.addini("parity_providers", "execution providers that tests with parity run on", "args", ["cpu"])
    parser.addini("parity_golden", "folder of golden answers, beside the test", default="golden")
    group = parser.getgroup("parity")
    group.addoption(
        "--parity-update", action="store_true", help="write golden answers anew, and show what changed"
    )
    group.addoption(
        "--parity-require",
        action="append",
        default=[],
        metavar="PROVIDER",
        help="run on this provider, too, and fail where it isn't there; may be given again",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each provider of one that asks for ``parity``."""
    if "parity" in metafunc.fixturenames:
        providers = list(metafunc.config.getini("parity_providers"))
        there = {name for each in providers for name in (_bare(each), _bare(each.partition(":")[0]))}
        for required in metafunc.config.getoption("--parity-require"):
            if _bare(required) not in there:
                providers.append(required)
                there.add(_bare(required))
        metafunc.parametrize("parity", providers, indirect=True)


def _bare(provider: str) -> str:
    """Return a provider by the one of its names that it has: cuda is CUDAExecutionProvider."""
    name, colon, options = provider.partition(":")
    return f"{name.lower().removesuffix('executionprovider')}{colon}{options}"


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> "Parity":
    """Compare models with their files, and runs on one provider with the files."""
    from ort_ops import providers, pytest_plugin  # noqa: PLC0415, for the tests that need them
    from ort_ops.errors import ProviderError  # noqa: PLC0415, the same

    provider: str = request.param
    try:
        providers.session_providers([providers.parse_provider(provider)])
    except ProviderError as error:
        required = request.config.getoption("--parity-require")
        if {_bare(provider), _bare(provider.partition(":")[0])} & {_bare(each) for each in required}:
            pytest.fail(f"--parity-require {provider}: {error}", pytrace=False)
        pytest.skip(str(error))
    folder = request.path.parent / request.config.getini("parity_golden")
    update: bool = request.config.getoption("--parity-update")
    # Not by record_property, which warns under the form of JUnit XML that is pytest's default.
    return pytest_plugin.Parity(provider, folder, update, request.node.user_properties)
