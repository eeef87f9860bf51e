"""The key and the headers come from the environment, and no message shows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.config import ApiConfig
from kdfast.errors import ConfigError
from kdfast.teacher.api.secrets_from_env import Secrets, read_secrets

HOSTED = "https://example.com/v1"
LOCAL = "http://127.0.0.1:8080/v1"
KEY = "kd-secret-0123456789"


def test_key_and_headers_are_stripped() -> None:
    api = ApiConfig(base_url=HOSTED, key_from_env="KEY", headers_from_env={"api-key": "A", "X-Team": "B"})
    secrets = read_secrets(api, {"KEY": f" {KEY}\n", "A": "\tazure-key-1 ", "B": "t1"})
    assert secrets == Secrets(key=KEY, headers={"api-key": "azure-key-1", "X-Team": "t1"})
    assert secrets.values == (KEY, "azure-key-1")
    assert repr(secrets) == str(secrets) == "Secrets(hidden)"


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": " \n"}])
def test_a_hosted_server_needs_a_key_and_a_local_one_does_not(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^api\.key_from_env: set .* or .* null .*: OPENAI_API_KEY$"):
        read_secrets(ApiConfig(base_url=HOSTED), environ)
    assert read_secrets(ApiConfig(base_url=LOCAL), environ) == Secrets()
    assert read_secrets(ApiConfig(base_url=HOSTED, key_from_env=None), environ) == Secrets()


@pytest.mark.parametrize("environ", [{}, {"V": " "}])
def test_a_header_that_is_named_is_needed(environ: dict[str, str]) -> None:
    api = ApiConfig(base_url=LOCAL, headers_from_env={"api-key": "V"})
    with pytest.raises(ConfigError, match=r"^api\.headers_from_env\.api-key: set .*: V$"):
        read_secrets(api, environ)


@pytest.mark.parametrize("value", [f"{KEY}\nX: y", f"{KEY}\0", f"{KEY}\x7f", f"{KEY}\u2013", f"{KEY}\x85x"])
def test_what_cannot_be_a_header_is_refused_unseen(value: str) -> None:
    for api in (
        ApiConfig(base_url=LOCAL, key_from_env="V"),
        ApiConfig(base_url=LOCAL, key_from_env=None, headers_from_env={"api-key": "V"}),
    ):
        with pytest.raises(ConfigError, match=r"set it anew: V$") as refused:
            read_secrets(api, {"V": value})
        assert KEY not in repr(refused.value)
        assert refused.value.__cause__ is None


@given(st.text(st.characters(max_codepoint=0x17F), max_size=8))
def test_every_value_that_is_taken_can_be_written(value: str) -> None:
    try:
        secrets = read_secrets(ApiConfig(base_url=LOCAL, key_from_env="V"), {"V": value})
    except ConfigError:
        assert any(not char.isprintable() or ord(char) > 255 for char in value.strip())
        return
    written = (secrets.key or "").encode("latin-1")
    assert not set(written) & {*range(32), 127}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"two words": "V"}, "name of a header"),
        ({"x\r\ny": "V"}, "name of a header"),
        ({"Content-Type": "V"}, "writes this header itself"),
        ({"api-key": "V", "API-Key": "V"}, "twice"),
        ({"authorization": "V"}, r"set api\.key_from_env to null"),
    ],
)
def test_headers_that_cannot_be(headers: dict[str, str], message: str) -> None:
    api = ApiConfig(base_url=LOCAL, key_from_env="KEY", headers_from_env=headers)
    with pytest.raises(ConfigError, match=message):
        read_secrets(api, {"V": "value-12345", "KEY": KEY})


def test_all_forms_of_a_secret_are_hidden() -> None:
    secrets = Secrets(key='a"b/c\u00e9defgh', headers={"Authorization": f"Token {KEY}", "X-Region": "eu"})
    assert secrets.values == (
        'a"b/c\u00e9defgh',
        'a\\"b/c\u00e9defgh',
        'a\\"b/c\\u00e9defgh',
        'a"b\\/c\u00e9defgh',
        "a%22b%2Fc%C3%A9defgh",
        f"Token {KEY}",
        f"Token%20{KEY}",
        KEY,
    )


def test_a_word_is_no_secret() -> None:
    """Servers of one's own want any key; answers hold such words."""
    local = read_secrets(ApiConfig(base_url=LOCAL, key_from_env="KEY"), {"KEY": "EMPTY"})
    assert (local.key, local.values) == ("EMPTY", ())
    with pytest.raises(ConfigError, match="no key of a hosted server"):
        read_secrets(ApiConfig(base_url=HOSTED, key_from_env="KEY"), {"KEY": "EMPTY"})
