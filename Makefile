.PHONY: test toolchain examples bench expectations occupancy bundle peers peers-train exact memory results

# All tests: units, documentation examples, properties on every backend, kernels in the virtual machine, the tool, the
# examples. The kernels are compiled for one architecture.
test: export MIVC_CUDA_ARCHS ?= 80
test: toolchain
	LIBCLANG_PATH=$$(scripts/libclang.sh) cargo test --workspace --all-features
	$(MAKE) examples

# A CUDA compiler, fetched where there is none.
toolchain:
	@scripts/find-nvcc.sh >/dev/null || scripts/cuda-toolchain.sh

# Each exits with an error where what it shows does not hold.
examples:
	cargo run --quiet --example quickstart
	cargo run --quiet --example digits
	cargo run --quiet --example tokens
	cargo run --quiet --example pieces
	cargo run --quiet --example exact

# Every operation, with criterion, and the virtual machine.
bench: toolchain
	cargo bench --bench scores --bench gate --bench softmax --bench weighted_sum --bench max_mean --bench attention_pool
	cargo bench -p ptx-vm

# What a model of bytes and FLOPs expects of the operations on an H200, for every row that a GPU would have.
# The library chooses tiles and paths, so it is built with its kernels, for one architecture.
expectations: export MIVC_CUDA_ARCHS ?= 80
expectations: toolchain
	cargo bench --features cuda --bench expectations

# Registers, shared memory and blocks per multiprocessor of the kernels of attention pool, on sm_80 and sm_90.
occupancy: toolchain
	scripts/occupancy.py

# Tests, benches and the tool for a GPU machine without Rust, in target/mivc-gpu.tar.gz.
bundle: toolchain
	scripts/gpu-bundle.sh

# Against PyTorch and candle, in one run; installs them under benches/peers on first use. On a GPU, against PyTorch and
# PyG: benches/peers/run.sh --device cuda.
peers:
	benches/peers/run.sh

# Steps of training against PyTorch's autograd: gradients and times.
peers-train:
	benches/peers/run.sh train

# The properties of Order::Exact: 100,000 cases on the CPU, in minutes, and 1,000 of the kernels in the virtual machine;
# then of kernels compiled for 90a that they have the bits of the CPU, as those for 80 have.
exact: export MIVC_CUDA_ARCHS ?= 80
exact: toolchain
	PROPTEST_CASES=800 cargo test --test properties -- exact:: --skip long_bags
	PROPTEST_CASES=60 cargo test --features cuda --test properties -- exact:: --skip cpu --skip gpu
	MIVC_CUDA_ARCHS=90a PROPTEST_CASES=60 \
		cargo test --features cuda --test properties -- exact::same_on_every_instruction_set --skip cpu --skip gpu

# Peak memory of attention pool on a million instances.
memory:
	cargo bench --bench peak_memory

# The tables of what a GPU measured in README.md, from the newest results.
results:
	scripts/results.py tables
