"""llama.cpp's functions are found in the installed wheel, and a wheel that does not serve is refused by name."""

import ctypes
import os
import sys

import pytest

import kdfast._rust
from kdfast.errors import ConfigError
from kdfast.llama_cpp import require_llama_cpp, version
from kdfast.llama_cpp.library import Library, Params, load_library, omp_threads, usable_cores
from kdfast.llama_cpp.loading import on_cpu

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


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("2,4", 2), (" 1 ", 1), ("", 0), ("many", 0)])
def test_omp_num_threads_is_read_as_torch_reads_it(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert omp_threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert omp_threads() == 0


def test_only_usable_cores_count():
    assert 1 <= usable_cores() <= os.cpu_count()


def _package(directory, monkeypatch):
    package = directory / "xllamacpp"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.syspath_prepend(directory)
    return package


def test_a_model_is_kept_off_every_gpu():
    params = on_cpu(load_library().functions.llama_model_default_params())
    assert params.words[4] == 0  # layers on a GPU
    devices = params.words[0] | params.words[1] << 32
    assert not ctypes.c_void_p.from_address(
        devices
    ).value  # a list that ends at once: no GPU may be used at all


@pytest.mark.parametrize("layers", [0, 999, 2**32 - 1])
def test_every_known_default_of_layers_is_taken(layers):
    params = Params()
    params.words[4] = layers
    assert on_cpu(params).words[4] == 0


@pytest.mark.parametrize(("word", "value"), [(4, 1), (0, 2**32 - 1), (3, 7)])
def test_parameters_in_another_order_are_refused(word, value):
    params = Params()
    params.words[word] = value
    with pytest.raises(ConfigError, match=rf"other parameters than kdfast knows.*{value}.*: {version()}$"):
        on_cpu(params)
