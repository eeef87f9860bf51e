"""llama.cpp's functions are found in the installed wheel, and a wheel that does not serve is refused by name."""

import os
import sys

import pytest

import kdfast._rust
from kdfast.errors import ConfigError
from kdfast.llama_cpp import require_llama_cpp, version
from kdfast.llama_cpp.library import Library, load_library, usable_cores

load_anew = load_library.__wrapped__


def test_the_installed_wheel_serves():
    require_llama_cpp()
    assert load_library() is load_library()
    assert version().count(".") >= 1
    assert load_library().functions.llama_n_ctx.restype is not None


def test_a_missing_wheel_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigError, match=r"llama\.cpp is not installed; pip install 'kdfast\[export\]'"):
        load_anew()


def test_a_wheel_without_a_library_is_refused(tmp_path, monkeypatch):
    _package(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"pip install 'kdfast\[export\]'.*has no library"):
        load_anew()


def test_a_wheel_without_the_functions_is_refused_with_the_first_that_lacks(tmp_path, monkeypatch):
    package = _package(tmp_path, monkeypatch)
    (package / "xllamacpp.abi3.so").symlink_to(kdfast._rust.__file__)
    with pytest.raises(ConfigError, match=rf"{version()} \(it has no function llama_log_set\)"):
        load_anew()


@pytest.mark.parametrize(
    ("complaints", "reason"),
    [
        ([(3, "w1"), (4, "e1"), (4, "e2"), (3, "w2")], "e1"),
        ([(3, "w1"), (3, "w2")], "w2"),
        ([], "llama.cpp gives no reason"),
    ],
)
def test_the_reason_is_the_first_error(complaints, reason):
    library = Library(functions=load_library().functions)
    library.complaints.extend(complaints)
    assert library.reason() == reason


def test_only_usable_cores_count():
    assert 1 <= usable_cores() <= os.cpu_count()


def _package(directory, monkeypatch):
    package = directory / "xllamacpp"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.syspath_prepend(directory)
    return package
