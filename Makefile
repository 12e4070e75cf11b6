# `make help` lists what there is. Everything is set up in .venv, and only there.

PYTHON ?= python3
# The version that the tests and the training are known to work with.
TORCH ?= torch==2.13.0
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

# A stamp is newer than setup.py once what it stands for is installed.
VENV_READY := $(VENV)/.ready-venv
DEMO_READY := $(VENV)/.ready-demo
SETUP_READY := $(VENV)/.ready-setup
# The other distribution cannot share an environment with the first.
KILTED := $(VENV)/kilted
KILTED_READY := $(VENV)/.ready-kilted
DESCRIPTION := setup.py setup.cfg pyproject.toml

# .venv has its own ROS. A ROS that is sourced in this shell, or another environment's ROS wheels
# that started it, would put other versions of the same libraries in front of it; and the wheels
# find their libraries only where _ROS_WHEELS_BOOTSTRAP_COMPLETE is not set yet.
ifneq ($(AMENT_PREFIX_PATH)$(_ROS_WHEELS_BOOTSTRAP_COMPLETE),)
unexport LD_LIBRARY_PATH
endif
unexport AMENT_PREFIX_PATH PYTHONHOME PYTHONPATH RMW_IMPLEMENTATION
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo test test-kilted soak lint clean distclean

help:
	@echo 'make demo    the main job, running: synthetic camera, node and monitor; sets itself up'
	@echo '             make demo ARGS="--seconds 20 --scale 4"'
	@echo 'make test    every test, and the ROS tests again under ROS 2 Kilted; sets itself up'
	@echo '             make test ARGS="-k camera_info"'
	@echo 'make soak    half an hour of faults: camera, node and engine killed, stopped, hung ...'
	@echo '             make soak ARGS="--minutes 10 --period 15"'
	@echo 'make setup   that set-up alone: .venv with ROS, training and test tools'
	@echo 'make lint    ruff and mypy'
	@echo 'make clean   remove what builds, tests and the demo wrote; make distclean: .venv too'
	@echo 'Another Python: PYTHON=python3.12'

setup: $(SETUP_READY)
	@echo '$(VENV) is ready.'

demo: $(DEMO_READY)
	$(VENV)/bin/dsca demo $(ARGS)

test: $(SETUP_READY)
	@echo '--- ROS 2 Jazzy: every test'
	@# Two at a time: tests of ROS measure latencies, which more would spoil.
	$(PY) -m pytest -q -n 2 --dist worksteal $(ARGS)
	@$(MAKE) --no-print-directory test-kilted

# What ARGS select may be none of these tests: pytest's status 5.
test-kilted: $(KILTED_READY)
	@if [ -e $(KILTED_READY) ]; then \
	  echo '--- ROS 2 Kilted: the ROS tests'; \
	  $(KILTED)/bin/python -m pytest -q -n 2 --dist worksteal -o testpaths=test/ros -m 'ros and not once' $(ARGS) || [ $$? = 5 ]; \
	else \
	  echo "--- ROS 2 Kilted: skipped, there are no wheels of it for $$($(PY) -V)"; \
	fi

soak: $(SETUP_READY)
	$(PY) test/ros/soak.py $(ARGS)

lint: $(SETUP_READY)
	$(PY) -m ruff check .
	$(PY) -m mypy

$(VENV_READY):
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo 'error: no $(PYTHON) here; install Python 3.10 or newer, or name one: PYTHON=python3.12' >&2; \
	  exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "error: dsca_ros needs Python 3.10 or newer, and $(PYTHON) is" \
	    "$$('$(PYTHON)' -V 2>&1); name another: PYTHON=python3.12" >&2; \
	  exit 1; }
	@'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo 'error: $(PYTHON) cannot make virtual environments; install its venv module' \
	    '(Debian and Ubuntu: sudo apt install python3-venv)' >&2; \
	  exit 1; }
	'$(PYTHON)' -m venv $(VENV)
	$(PIP) install 'pip>=22'
	@touch $@

$(DEMO_READY): $(DESCRIPTION) | $(VENV_READY)
	@echo 'Installing the node and ROS in $(VENV): a minute or two, once.'
	@# With OpenVINO, half as fast again on an x86 processor, where there is a wheel of it.
	$(PIP) install --editable '.[ros,openvino]' 2>/dev/null || $(PIP) install --editable '.[ros]'
	@touch $@

$(SETUP_READY): $(DESCRIPTION) | $(VENV_READY)
	@echo 'Installing the node, ROS, training and test tools in $(VENV): some minutes, once.'
	@# First and alone: a build that is there already is not exchanged for a larger one below.
	$(PIP) install '$(TORCH)'
	$(PIP) install --editable '.[ros,replay,dask,train,dev]' '$(TORCH)'
	@touch $(DEMO_READY) $@

# Light: what a robot has, and pytest; no torch. Without wheels there is no stamp, and the tests say so.
$(KILTED_READY): $(DESCRIPTION) | $(VENV_READY)
	@echo 'Installing the node and ROS 2 Kilted in $(KILTED): a minute or two, once.'
	@rm -f $@
	$(PY) -m venv $(KILTED)
	@log=$(KILTED)/install.log; \
	if $(KILTED)/bin/python -m pip --disable-pip-version-check --quiet install --only-binary ros-rclpy \
	  --editable '.[ros-kilted,test]' 2>$$log; then touch $@; \
	elif ! grep -q 'No matching distribution found for ros-' $$log; then cat $$log >&2; exit 1; fi

clean:
	rm -rf build install log dist demo *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
