# make install | make train | make test: environment, build and job, with Python >= 3.10, a C++20 compiler and make.
#   make train ARGS="trainer=v3 model=mlp"
#   make train TORCH_ARGS="torch==2.12.*"      which torch build; any arguments of pip install

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?= --numprocesses 3 --dist loadscope --no-loadscope-reorder
TORCH_ARGS ?= "torch>=2.9,<2.14"
CONSTRAINTS ?=

bin := $(VENV)/bin
pip := $(bin)/pip --disable-pip-version-check
constrain := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
# Named after what was asked for, so that another TORCH_ARGS installs another torch.
torch := $(VENV)/.torch-$(firstword $(shell printf '%s' '$(subst ','\'',$(TORCH_ARGS)) $(CONSTRAINTS)' | cksum))
sources := pyproject.toml CMakeLists.txt $(wildcard engine_cpp/*.?pp engine_cpp/kernels/*.?pp)

.PHONY: install train test sanitized lint format stubs clean

install: $(VENV)/.built

train: $(VENV)/.built
	$(bin)/python -m atheria.train $(ARGS)

test: $(VENV)/.built
	OMP_WAIT_POLICY=passive $(bin)/python -m pytest $(PYTEST_ARGS)

# The engine's own tests, with every access to memory and every undefined operation checked. -S: the editable
# install stays out of the way. Left out: what libtorch computes, what is equal bit for bit when optimised alone, and
# forks: AddressSanitizer's allocator leaves its locks to a child as they are.
# And another process, which is not started with -S: it would run the editable install.
# The quarantine of freed memory is full before tests that look at the process's size.
# Two processes test, started alike: -n would start them without the -S.
sanitized_tests := tests/test_compiled.py tests/test_parity.py tests/test_unbounded.py tests/test_engine.py \
  tests/test_snapshots.py
sanitizers := libasan.so libubsan.so libstdc++.so
sanitized: $(VENV)/.built
	env -u SKBUILD_CMAKE_DEFINE $(pip) install --quiet --upgrade --no-deps --no-build-isolation --target build/sanitized \
	  -C build-dir=build/sanitized-objects -C cmake.define.ATHERIA_SANITIZE=address,undefined .
	LD_PRELOAD="$(foreach library,$(sanitizers),$(shell $(CXX) -print-file-name=$(library)))" \
	  ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16:allocator_may_return_null=1 \
	  UBSAN_OPTIONS=print_stacktrace=1 OMP_WAIT_POLICY=passive \
	  PYTHONPATH=$(CURDIR)/build/sanitized:$$($(bin)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
	  $(bin)/python -S -m pytest --tx '2*popen//python=$(bin)/python -S' --dist loadscope --no-loadscope-reorder \
	  -k "not torchscript and not far_away and not fork and not another_process" $(sanitized_tests)

lint: $(VENV)/.linted
	$(bin)/ruff format --check
	$(bin)/ruff check
	$(bin)/mypy
	$(bin)/clang-format --dry-run --Werror engine_cpp/*.?pp engine_cpp/kernels/*.?pp benchmarks/*.cpp

format: $(VENV)/.linted
	$(bin)/ruff format
	$(bin)/ruff check --fix
	$(bin)/clang-format -i engine_cpp/*.?pp engine_cpp/kernels/*.?pp benchmarks/*.cpp

# The types of the extension, as mypy reads them; a test compares them with the extension.
stubs: $(VENV)/.built
	$(bin)/python tools/stubs.py

clean:
	rm -rf $(VENV) build

# The environment: torch first, so that the extension is built with the torch that it runs with.
$(torch):
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14) and 'atheria needs Python 3.10 to 3.13, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	$(pip) install --quiet $(constrain) $(TORCH_ARGS) cmake ninja "nanobind>=2.9" "scikit-build-core>=0.11"
	@touch $@

$(VENV)/.built: $(torch) $(sources)
	$(pip) install --quiet $(constrain) --no-build-isolation --editable .[test]
	@touch $@

$(VENV)/.linted: $(VENV)/.built
	$(pip) install --quiet $(constrain) --no-build-isolation --editable .[lint]
	@touch $@
