"""GPUs that programs are compiled for without being present.

XLA's CUDA plugin compiles for a GPU from its description, with the same passes, kernels and buffers
as on the device, except that no library algorithms are tried out. The memory that these algorithms
need beside the program's own scratch is therefore unknown.
"""

from importlib import util
from pathlib import Path

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from recon_ad.errors import UserError

H100 = "H100 80GB"
PER_HOST = 8  # GPUs of each host
# Description as XLA writes it on the device (its tools/hlo_opt/gpu_specs has such files).
_DESCRIPTION = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""

# One of these exists if there is an NVIDIA GPU, on Linux or on WSL; JAX checks them too.
_DEVICES = ("/dev/nvidia0", "/dev/dxg")
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def expect_no_gpu() -> None:
    """Allow the plugin to compile on a machine without a GPU; call this before any device use.

    By default, the plugin would miss the GPU's libraries and fail.
    """
    there = any(Path(device).exists() for device in _DEVICES)
    if not there and any(util.find_spec(plugin) for plugin in _PLUGINS):
        jax.config.update("jax_platforms", "cpu")


def described_mesh(count: int) -> Mesh:
    """Return a mesh like `mesh.data_mesh`, of H100s that are not present, up to eight per host.

    From then on JAX keeps no compiled programs on disk, because it could not read these again.

    Raises:
      ValueError: If the GPUs do not fill the hosts.
      UserError: If the plugin that compiles for them is not installed.
    """
    if count > PER_HOST and count % PER_HOST:
        raise ValueError(f"{count} GPUs: give up to {PER_HOST}, or a multiple of {PER_HOST}.")
    hosts = -(-count // PER_HOST)
    try:
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=_DESCRIPTION,
            topology=f"1x{hosts}x{count // hosts}",
        )
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(
            "compiling without a GPU needs XLA's CUDA plugin, which is missing or does not "
            f"respond ({str(error).partition(chr(10))[0]}): run pip install -e '.[aot]'."
        ) from None
    jax.config.update("jax_enable_compilation_cache", False)
    return Mesh(np.array(topology.devices), ("data",), axis_types=(AxisType.Auto,))
