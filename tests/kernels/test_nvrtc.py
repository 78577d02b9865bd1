"""Every kernel goes through the GPU's own compiler, for every architecture it supports."""

import re

import pytest

from fastgan.kernels.common.kernel import ROOT, Kernel
from tests import requirements
from tests.kernels import every_kernel, nvrtc

# The training step's and the Parzen pass's own; the others run once, or for extreme arguments.
HOT = re.compile(
    r"(linear|conv)_((maxout|transpose)_)?(forward|backward)|max_pool|gan_loss|gather_rows|noise_uniform|parzen_(product|planes|warpgroups)"
)


@pytest.fixture(scope="module", autouse=True)
def compiler():
    reason = nvrtc.why_not()
    if reason is not None:
        requirements.required(reason)


@pytest.fixture(scope="module")
def compiled():
    return every_kernel.all_compiled()


def test_every_kernel_compiles_for_every_architecture(compiled):
    for kernel, architecture, found in compiled:
        # An ELF whose flags' second byte is the architecture: the code is for it, not for an older one.
        assert found.cubin[:4] == b"\x7fELF", kernel.name
        assert f"for 'sm_{architecture}" in found.log, kernel.name
    names = {kernel.name.partition("<")[0] for kernel, _, _ in compiled}
    sources = {kernel.source for kernel, _, _ in compiled}
    written = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/*.cu")}
    assert sources == written
    for source in written:
        text = (ROOT / source).read_text()
        assert set(re.findall(r"__global__ void(?: \w+)*? ?(?:__launch_bounds__\([^)]*\))?\s*(\w+)\(", text)) <= names


def test_none_of_the_hot_ones_spills(compiled):
    for kernel, architecture, found in compiled:
        of = dict(kernel.defines)
        if HOT.match(kernel.name) and of.get("PIECES", 5) <= 16:
            assert (found.spills, found.stack) == (0, 0), (kernel, architecture)


def test_warpgroups_multiply_while_they_go_on(compiled):
    of_warpgroups = [(kernel, found) for kernel, _, found in compiled if kernel.architecture == "sm_90a"]
    assert len({kernel.defines for kernel, _ in of_warpgroups}) == 2
    for kernel, found in of_warpgroups:
        assert "for 'sm_90a'" in found.log, kernel
        # What the compiler says where it must wait after each multiplication.
        assert "serialized" not in found.log, kernel


def test_registers_and_shared_memory_fit(compiled):
    for kernel, architecture, found in compiled:
        assert found.registers * kernel.threads <= 65536, (kernel, architecture)
        assert kernel.shared_bytes <= every_kernel.RecordingRuntime(architecture).max_shared_bytes


def test_what_an_architecture_lacks_is_an_error():
    tensor_cores = '__global__ void f(float* x) { asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(*(unsigned*)x) : "f"(*x)); }'
    nvrtc.compiled(Kernel("f.cu", "f"), 80, tensor_cores)
    with pytest.raises(RuntimeError, match="f for sm_75"):
        nvrtc.compiled(Kernel("f.cu", "f"), 75, tensor_cores)
