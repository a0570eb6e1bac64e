"""Decompression and verification of a layer's stream, without writing anything."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest

from appbox.errors import Refused, Unavailable
from appbox.oci.inflate import BLOCK, inflate
from appbox.oci.limits import Limits
from appbox.oci.stream import Layer
from appbox.oci.unpack import list_image
from tests.ground.layers import OCI, archive, digest, file, gzip_layer, layer

zstd: Any
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TAR = archive(file(b"f", os.urandom(100_000)), file(b"g", bytes(3 << 20)))


def blocks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.fixture(params=["isal", "zlib"])
def gunzip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    return "gzip"


@pytest.mark.usefixtures("gunzip")
class TestGzip:
    @pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
    def test_one_member(self, size: int) -> None:
        data = TAR[: 2 << 10] if size < 10 else TAR
        assert b"".join(inflate("gzip", blocks(gzip.compress(data), size))) == data

    @pytest.mark.parametrize("size", [1, 20, 1000])
    def test_many_members(self, size: int) -> None:
        data = b"".join(gzip.compress(b"%d" % i) for i in range(50)) + gzip.compress(b"")
        assert b"".join(inflate("gzip", blocks(data, size))) == b"".join(b"%d" % i for i in range(50))

    def test_output_comes_in_bounded_blocks(self) -> None:
        assert max(len(block) for block in inflate("gzip", [gzip.compress(bytes(10 << 20))])) <= BLOCK

    @pytest.mark.parametrize("cut", [1, 4, 8, 9, 100])
    def test_truncated(self, cut: int) -> None:
        with pytest.raises(Refused, match="truncated"):
            list(inflate("gzip", blocks(gzip.compress(TAR)[:-cut])))

    @pytest.mark.parametrize("rest", [b"\0", b"x", bytes(512), b"\x1f\x8b", b"garbage" * 100, b"\x1f\x8b\x08garbage"])
    def test_garbage_after_the_end(self, rest: bytes) -> None:
        with pytest.raises(Refused):
            list(inflate("gzip", blocks(gzip.compress(TAR) + rest)))

    def test_a_wrong_check_value(self) -> None:
        data = bytearray(gzip.compress(b"content"))
        data[-6] ^= 1
        with pytest.raises(Refused, match="not valid gzip"):
            list(inflate("gzip", [bytes(data)]))

    def test_nothing_at_all(self) -> None:
        assert list(inflate("gzip", [])) == []
        with pytest.raises(Refused, match="not gzip"):
            list(inflate("gzip", [b"plainly not"]))


class TestZstd:
    @pytest.mark.parametrize("size", [1, 1000, 1 << 20])
    def test_one_frame(self, size: int) -> None:
        data = TAR[: 2 << 10] if size < 10 else TAR
        assert b"".join(inflate("zstd", blocks(zstd.compress(data), size))) == data

    def test_frames_and_skippable_frames(self) -> None:
        skip = b"\x5e\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"index"
        data = skip + zstd.compress(b"one") + zstd.compress(b"two") + skip
        assert b"".join(inflate("zstd", blocks(data, 3))) == b"onetwo"

    def test_truncated_and_garbage(self) -> None:
        with pytest.raises(Refused, match="truncated"):
            list(inflate("zstd", blocks(zstd.compress(TAR)[:-3])))
        with pytest.raises(Refused, match="goes on after its end"):
            list(inflate("zstd", blocks(zstd.compress(TAR) + b"garbage")))

    def test_a_window_that_would_take_too_much_memory(self) -> None:
        options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.compression_level: 1}
        compressor = zstd.ZstdCompressor(options=options)
        data = compressor.compress(b"x" * 1000) + compressor.flush()
        with pytest.raises(Refused, match="not valid zstd"):
            list(inflate("zstd", [data]))


class TestLayer:
    def listed(self, made: Layer, limits: Limits = Limits()) -> list[str]:  # noqa: B008
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        try:
            return list(list_image([made], limits=limits).paths())
        finally:
            assert threading.active_count() == threads
            assert len(os.listdir("/proc/self/fd")) == descriptors

    @pytest.mark.parametrize(
        ("data", "media_type"),
        [
            (TAR, OCI),
            (TAR, "application/vnd.docker.image.rootfs.diff.tar"),
            (gzip.compress(TAR), OCI + "+gzip"),
            (gzip.compress(TAR), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
            (gzip.compress(TAR), "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            (zstd.compress(TAR), OCI + "+zstd"),
            (zstd.compress(TAR), "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
        ],
    )
    def test_media_types(self, data: bytes, media_type: str) -> None:
        assert self.listed(layer(TAR, data, media_type)) == ["/", "/f", "/g"]

    @pytest.mark.parametrize(
        ("data", "media_type"),
        [
            (gzip.compress(TAR), OCI),
            (TAR, OCI + "+gzip"),
            (zstd.compress(TAR), OCI + "+gzip"),
            (gzip.compress(TAR), OCI + "+zstd"),
            (TAR, OCI + "+bzip2"),
            (TAR, "text/plain"),
        ],
    )
    def test_media_types_that_lie(self, data: bytes, media_type: str) -> None:
        with pytest.raises(Refused, match="layer sha256:"):
            self.listed(layer(TAR, data, media_type))

    def test_wrong_digests(self) -> None:
        good = gzip_layer(TAR)
        for digests in ((digest(b"x"), good.diff_id), (good.digest, digest(b"x"))):
            with pytest.raises(Refused, match="of a layer is wrong"):
                self.listed(Layer(*digests, good.media_type, good.size, good.open))

    @pytest.mark.parametrize("off", [-1, 1, -1000])
    def test_wrong_sizes(self, off: int) -> None:
        good = gzip_layer(TAR)
        with pytest.raises(Refused, match="than its manifest says"):
            self.listed(Layer(good.digest, good.diff_id, good.media_type, good.size + off, good.open))

    def test_every_byte_counts(self) -> None:
        """Whatever byte of a small layer is changed, it is refused (some forty of each)."""
        tar = archive(file(b"f", b"data"))
        for raw, media_type in (
            (tar, OCI),
            (gzip.compress(tar, mtime=0), OCI + "+gzip"),
            (zstd.compress(tar), OCI + "+zstd"),
        ):
            for at in range(0, len(raw), 1 + len(raw) // 40):
                broken = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]
                made = Layer(digest(raw), digest(tar), media_type, len(raw), lambda broken=broken: io.BytesIO(broken))  # type: ignore[misc]
                with pytest.raises(Refused):
                    list_image([made])

    def test_a_bomb(self) -> None:
        limits = Limits(ratio=50, ratio_from=1 << 20)
        with pytest.raises(Refused, match="like a bomb"):
            self.listed(gzip_layer(archive(file(b"f", bytes(8 << 20)))), limits)
        with pytest.raises(Refused, match="larger than the limit"):
            self.listed(gzip_layer(archive(file(b"f", bytes(4 << 20)))), Limits(size=4 << 20))

    def test_limits_count_all_layers_together(self) -> None:
        made = [gzip_layer(archive(file(b"f", bytes(3 << 20)))), gzip_layer(archive(file(b"g", bytes(3 << 20))))]
        with pytest.raises(Refused, match="larger than the limit"):
            list_image(made, limits=Limits(size=5 << 20))
        with pytest.raises(Refused, match="more entries"):
            list_image(made, limits=Limits(entries=1))

    def test_what_the_source_raises(self) -> None:
        class Cut(io.RawIOBase):
            def read(self, size: int = -1) -> bytes:
                raise ConnectionResetError(104, "Connection reset by peer")

        def missing() -> BinaryIO:
            return open("/nonexistent/blob", "rb")

        good = gzip_layer(TAR)
        for source in (Cut, missing):
            with pytest.raises(Unavailable, match="cannot be read"):
                self.listed(Layer(good.digest, good.diff_id, good.media_type, good.size, source))  # type: ignore[arg-type]

    def test_an_early_refusal_leaves_no_thread_behind(self) -> None:
        made = gzip_layer(archive(file(b"../f"), file(b"big", bytes(12 << 20))))
        for _ in range(8):
            with pytest.raises(Refused, match=r"\.\."):
                self.listed(made)
