"""Encrypts the cache of private images, under a key that lies in the system's keyring.

Each image is sealed by itself (AES-256-GCM), so that a step of training opens the
images it drew and no others, and memory does not grow. Whoever takes the disk, a backup
or the project folder has no key; whoever works under the custodian's account has.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.errors import UserError
from core.files import read_json, write_json

OVERHEAD: Final = 28
"""Bytes that sealing adds to an image: a random nonce of 12, and a tag of 16."""

_NONCE: Final = 12
_KEY_BYTES: Final = 32
_SERVICE: Final = "Sfumato"
_NAME: Final = "vault.json"
_TRUSTED: Final = 1
"""The priority from which on `keyring` itself recommends a keyring."""


class Vault:
    """Seals and opens images with one key.

    Guarantee: without the key nothing is learnt of a sealed image but its length, and
    one that was changed, or put in another's place, is not opened (AES-GCM; nonces are
    random, which is safe for 2**32 images under one key).

    Args:
        key: 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    def seal(self, content: bytes, place: int) -> bytes:
        """`OVERHEAD` bytes more than `content`, to be opened at the same place only."""
        # PRIVACY: a nonce is never used twice, also when a draft is gone on with.
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, _bound(place))

    def open(self, sealed: bytes, place: int) -> bytes:
        """The content.

        Raises:
            UserError: If it was changed, moved, or sealed with another key.
        """
        from cryptography.exceptions import InvalidTag

        try:
            nonce, rest = sealed[:_NONCE], sealed[_NONCE:]
            return self._cipher.decrypt(nonce, rest, _bound(place))
        except InvalidTag:
            raise UserError(
                "An image of the encrypted cache was damaged or exchanged: delete the "
                "cache with sfumato forget, and open the project again to read the "
                "images anew."
            ) from None


def _bound(place: int) -> bytes:
    return place.to_bytes(8, "big")


class SealedImages:
    """An array of sealed images that opens those that are asked for.

    Behaves as a uint8 array [N, H, W, C] where rows of it are taken: by a number, a
    slice, or an array of numbers or of truth values.

    Args:
        records: uint8 [N, bytes of an image + `OVERHEAD`], may be a memory map.
        shape: (H, W, C).
        vault: Opens them.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, records: np.ndarray, shape: tuple[int, int, int], vault: Vault
    ) -> None:
        self._records = records
        self._vault = vault
        self.shape = (len(records), *shape)
        if len(records):
            self[0]  # With another key nothing can be opened: known at once.

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        places = np.arange(len(self))[rows]
        if np.ndim(places) == 0:
            return self._opened(int(places))
        opened = np.empty((len(places), *self.shape[1:]), np.uint8)
        for number, place in enumerate(places.tolist()):
            opened[number] = self._opened(place)
        return opened

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _opened(self, place: int) -> np.ndarray:
        content = self._vault.open(self._records[place].tobytes(), place)
        return np.frombuffer(content, np.uint8).reshape(self.shape[1:])


def open_vault(cache: Path) -> Vault:
    """The vault of a cache folder; its key is made when there is none yet.

    Raises:
        UserError: If this computer has no keyring, or it gives no access.
    """
    keyring = _keyring()
    place = cache / _NAME
    name = str(read_json(place)["key"]) if place.is_file() else os.urandom(16).hex()
    try:
        kept = keyring.get_password(_SERVICE, name)
        if kept is None:
            kept = os.urandom(_KEY_BYTES).hex()
            keyring.set_password(_SERVICE, name, kept)
            if keyring.get_password(_SERVICE, name) != kept:
                raise _no_keyring("it does not keep what is put into it")
        key = bytes.fromhex(kept)
    except UserError:
        raise
    except Exception as error:  # Every system's keyring has errors of its own.
        raise _no_keyring(str(error) or type(error).__name__) from error
    if len(key) != _KEY_BYTES:
        raise _no_keyring("it holds a key that is not ours")
    if not place.is_file():
        write_json(place, {"key": name})
    return Vault(key)


def destroy_key(cache: Path) -> None:
    """Take the key of a cache out of the keyring: what it sealed is lost for good.

    Raises:
        UserError: If there is a key and the keyring gives no access to it.
    """
    place = cache / _NAME
    if not place.is_file():
        return
    name = str(read_json(place)["key"])
    keyring = _keyring()
    try:
        if keyring.get_password(_SERVICE, name) is not None:
            keyring.delete_password(_SERVICE, name)
    except Exception as error:
        raise _no_keyring(str(error) or type(error).__name__) from error
    place.unlink()


def _keyring() -> Any:
    """The system's keyring.

    Raises:
        UserError: If there is none that keeps secrets from other accounts.
    """
    import keyring

    try:
        found = keyring.get_keyring()
        trusted = found.priority >= _TRUSTED
    except Exception as error:
        raise _no_keyring(str(error) or type(error).__name__) from error
    # PRIVACY: a key that lies in a plain file is no protection, and is not called one.
    if not trusted:
        raise _no_keyring("none is installed or unlocked")
    return found


def _no_keyring(reason: str) -> UserError:
    return UserError(
        f"The cache cannot be encrypted, since the keyring of this computer cannot be "
        f"used ({reason}): unlock or install one (GNOME Keyring, KWallet, the one of "
        "Windows or macOS), or choose to keep the images in memory only, or on the "
        "disk readable by your account only and not encrypted."
    )
