"""What exports needs torch and onnxscript: without them these tests are skipped, module by module."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
