"""C sources -> instructions, with bcc as nothing but a compiler, in a process that ends soon after.

Importing bcc costs 71 MB, compiling with it 150 MB (measured): only the loader's short-lived process may call build().
The result names maps by number (layout.MAP_NUMBER), so it can be kept in a file and loaded again without bcc.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bpf.layout import PROGRAMS, c_assertions, c_constants, source_digest

SOURCE_DIR = Path(__file__).parent / "src"
MAIN = "deflector.bpf.c"
HEADER_ROOT = Path("/usr/src")
ARCH_DIR = {"x86_64": "x86", "aarch64": "arm64", "riscv64": "riscv", "ppc64le": "powerpc", "s390x": "s390"}


class CompileError(Exception):
    """The programs cannot be built here; the message is one line that says what to do."""


def sources() -> dict[str, bytes]:
    """Our C files by name."""
    return {path.name: path.read_bytes() for path in sorted(SOURCE_DIR.glob("*.[ch]"))}


def digest() -> bytes:
    """What identifies the programs: equal digest, equal programs."""
    return source_digest(sources())


def find_headers(root: Path = HEADER_ROOT) -> list[Path]:
    """Folders of the newest kernel headers installed, those with generated files first; empty if there are none.

    Any version will do for tc programs. Debian splits one version in `-<flavour>` and `-common`; others have it whole.
    """
    version = platform.release()
    whole = Path(f"/lib/modules/{version}/build")
    if (whole / "include/linux/kconfig.h").exists() and (whole / "include/generated/autoconf.h").exists():
        return [whole.resolve()]
    found = [p for p in root.glob("linux-headers-*") if (p / "include/generated/autoconf.h").exists()]
    for folder in sorted(found, key=_version_key, reverse=True):
        if (folder / "include/linux/kconfig.h").exists():
            return [folder]
        common = folder.with_name(folder.name.rsplit("-", 1)[0] + "-common")
        if (common / "include/linux/kconfig.h").exists():
            return [folder, common]
    return []


def _version_key(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in path.name.replace("-", ".").split(".")]


def _merge(folders: list[Path], into: Path) -> Path:
    """One tree of symbolic links over the parts that bcc's include path names."""
    if len(folders) == 1:
        return folders[0]
    arch = ARCH_DIR.get(platform.machine(), platform.machine())
    for part in ("include", f"arch/{arch}/include"):
        (into / part).mkdir(parents=True)
        for folder in folders:
            for entry in sorted((folder / part).glob("*")):
                link = into / part / entry.name
                if not link.is_symlink():
                    link.symlink_to(entry)
    return into


@contextmanager
def _quiet() -> Iterator[Path]:
    """bcc's clang writes to descriptor 2: keep it in a file, to be shown only if it matters."""
    with tempfile.NamedTemporaryFile(prefix="deflector-clang-") as log:
        kept = os.dup(2)
        try:
            sys.stderr.flush()
            os.dup2(log.fileno(), 2)
            yield Path(log.name)
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _text() -> str:
    """bcc makes a program of each function of its main text; ours live in an included file."""
    entries = "".join(f"int {name}(struct __sk_buff *skb) {{ return program_{name}(skb); }}\n" for name in PROGRAMS)
    return f'{c_constants()}#include "{MAIN}"\n{c_assertions()}{entries}'


def build(headers: Path | None = None) -> Mapping[str, bytes]:
    """Program name -> instructions, with map numbers where descriptors belong. CompileError when it cannot be."""
    folders = [headers] if headers else find_headers()
    if not folders:
        raise CompileError("no kernel headers are installed: apt install linux-headers-amd64 (any version will do)")
    with tempfile.TemporaryDirectory(prefix="deflector-headers-") as folder:
        os.environ["BCC_KERNEL_SOURCE"] = str(_merge(folders, Path(folder)))
        return _build()


def _build() -> Mapping[str, bytes]:
    try:
        import bcc
    except ImportError as error:
        raise CompileError(
            "bcc is missing: apt install python3-bpfcc, and use /usr/bin/python3's site-packages"
        ) from error
    flags = ["-I" + str(SOURCE_DIR), "-O2", "-Wall", "-Werror", "-Wno-macro-redefined", "-Wno-unused-function"]
    with _quiet() as log:
        try:
            module = bcc.BPF(text=_text(), cflags=flags)
            return {name: module.dump_func(name.encode()) for name in PROGRAMS}
        except Exception as error:  # bcc raises bare Exception for every failure
            lines = [line for line in log.read_text(errors="replace").splitlines() if "error:" in line]
            raise CompileError(f"the programs do not compile: {lines[0] if lines else error}") from error
