"""What compares models with files needs torch and onnxscript: without them these tests are skipped."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
