# make demo    two routers, one untrusted link, on this machine
# make test    vet, all tests with the race detector, and the kernel tests
# make lint    golangci-lint, pinned; installed into the cache directory once
# make fuzz    every fuzzer for FUZZTIME (30s) each
# make sim     SEEDS (1000) seeds of a simulated hour each, from FIRST (1) on
#              and for FOR (0: no limit) at most
# make mutants puts deliberate bugs in, one by one, which the simulation must find
# make trials  restarts, absences, drifts and rotation as often and as long as is promised (an hour and a half)
# make chaos   everything at once on one link, for FOR (3m), from SEED (1)
# make bench   all benchmarks
# make deb     bin/lever_VERSION_ARCH.deb, by nfpm, pinned; installed into the cache
#              directory once
#
# Nothing has to be prepared. What is missing (a kernel with MACsec, tshark,
# wpa_supplicant, systemd-analyze, swtpm) is installed with apt-get if we are root, and otherwise
# unpacked into ~/.cache/lever; .ci/packages does both and says so.

GO            ?= go
FUZZTIME      ?= 30s
SEEDS         ?= 1000
FIRST         ?= 1
FOR           ?= 0
SEED          ?= 1
GOLANGCI_LINT := v2.15.0
NFPM_VERSION  := v2.45.2

CACHE    := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lever
UMLEXEC  := $(CURDIR)/bin/umlexec
LINT     := $(CACHE)/golangci-lint-$(GOLANGCI_LINT)/golangci-lint
NFPM     := $(CACHE)/nfpm-$(NFPM_VERSION)/nfpm
# The race detector needs a C compiler; without one the tests run all the same.
RACE     := $(if $(shell command -v $${CC:-gcc}),-race)

# The last release's tag and the commits since, or before the first their number,
# so that a later version is the greater one for dpkg.
VERSION ?= $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-\([0-9]*\)-g/+\1.g/' | grep . || \
	echo 0.0.$$(git rev-list --count HEAD 2>/dev/null || echo 0)+g$$(git rev-parse --short HEAD 2>/dev/null || echo 0))

# The runtime must not preempt by signals: one that comes while a key is worked on
# saves the registers where nobody can erase them.
QUIET = -X runtime.godebugDefault=asyncpreemptoff=1

# Simulated hours on all processors, without the race detector: there is nothing to
# race in a seed. A failed one leaves its capture and diary under bin/_artifacts.
SIM = GOGC=400 $(GO) test -count=1 -timeout=0 -v ./internal/sim -run '^TestSeeds$$' -artifacts -outputdir=$(CURDIR)/bin

export PATH := $(CACHE)/tools/bin:$(PATH):/usr/sbin:/sbin

# What tests have measured and is shown when they have passed. Captures and logs
# of those that failed are in bin/_artifacts.
FIGURES := $(CURDIR)/bin/figures

# Packages with tests for a kernel with MACsec, where they run as root. Those of
# umlexec are about starting such a kernel and run on the host only.
KERNEL_TESTS = $(shell grep -rlE --include='*_test.go' '^//go:build .*\bkernel\b' . | \
	grep -v /testdata/ | xargs -r -n 1 dirname | sort -u | grep -vx ./internal/uml/umlexec)

KERNEL_TEST = LEVER_FIGURES=$(FIGURES) LEVER_ETCD=$(ETCD) CGO_ENABLED=0 $(GO) test -tags kernel -count=1 -p 1 -timeout 30m -ldflags '$(QUIET)' \
	-artifacts -outputdir $(CURDIR)/bin -exec $(UMLEXEC)
# A real etcd of three members: a Go module of its own, so that Lever does not
# depend on etcd's server.
ETCD     := $(CURDIR)/bin/etcdcluster
ETCDTEST := internal/keys/etcd/etcdtest
CHANNELS = ^(TestTwoChannels|TestRevokedNode|TestKeyService|TestKeyTooOld)
BESIDE = ^(TestWPA|TestFlood|TestSuspend|TestPSK|TestDelay)
# Another build of lever is upgraded to, and back.
TRIAL = LEVER_NEXT=$(CURDIR)/bin/lever $(KERNEL_TEST) -timeout 3h
TRIALS = ^(TestChaos|TestDrift|TestRestartTrials|TestReturn)

.PHONY: always test-channels test-etcd test-lever test-trials trials chaos test-others demo test lint fuzz sim bench kernel tools build mutants deb test-deb test-tpm

build:
	CGO_ENABLED=0 $(GO) build -ldflags '-X main.version=$(VERSION) $(QUIET)' -o bin/lever ./cmd/lever

deb: build $(NFPM)
	@rm -f bin/lever_*.deb
	VERSION='$(VERSION)' ARCH=$$($(GO) env GOARCH) SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 0) \
		$(NFPM) package -f internal/service/package/nfpm.yaml -p deb -t bin/

demo: build kernel
	bin/lever demo

test: kernel tools
	$(GO) vet ./...
	$(GO) vet -tags kernel ./...
	@$(if $(RACE),,echo "no C compiler ($${CC:-gcc}): the race detector is left out")
	$(GO) test $(RACE) ./...
	@$(MAKE) --no-print-directory test-deb test-tpm
	$(SIM) -sim.seeds=200
	CGO_ENABLED=0 $(GO) test -tags kernel -count=1 -p 1 ./internal/uml/...
	@rm -rf bin/_artifacts $(FIGURES) $(FIGURES).*
	$(MAKE) --no-print-directory -j 3 -O test-lever test-others test-trials
	$(MAKE) --no-print-directory -j 2 -O test-channels test-etcd
	@cat $(FIGURES) $(FIGURES).*

# The unit and the package, by systemd-analyze and dpkg; no root needed.
test-deb: tools deb
	$(GO) vet -tags deb ./internal/service
	LEVER_NFPM=$(NFPM) LEVER_DEB=$$(echo $(CURDIR)/bin/lever_*.deb) $(GO) test -tags deb -count=1 ./internal/service

# Identities that a TPM has sealed, with an emulator of one; no root needed.
test-tpm: tools
	$(GO) vet -tags tpm ./internal/identity
	$(GO) test -tags tpm -count=1 -run TPM ./internal/identity

# A guest has one processor: the longest package has three of them, side by side.
test-lever:
	$(KERNEL_TEST) -skip '$(BESIDE)|$(TRIALS)|$(CHANNELS)' ./cmd/lever

# Beside two other guests nothing is quick.
test-trials: build
	$(TRIAL) -run '$(TRIALS)' ./cmd/lever -chaos.for=3m -drift.within=6s

# Keys over an etcd and sealed bundles; epochs last a minute, and so this waits. Not
# beside other guests: members that wait for a processor lose their leader.
test-channels: $(ETCD)
	$(KERNEL_TEST) -run '$(CHANNELS)' ./cmd/lever

# What needs etcd and no kernel.
test-etcd:
	cd $(ETCDTEST) && $(GO) vet ./... && $(GO) test -count=1 ./...

# Always: whether it is up to date, go knows.
$(ETCD): always
	cd $(ETCDTEST) && CGO_ENABLED=0 $(GO) build -o $@ ./cmd/etcdcluster

test-others:
	$(KERNEL_TEST) -run '$(BESIDE)' ./cmd/lever
	$(KERNEL_TEST) $(filter-out ./cmd/lever,$(KERNEL_TESTS))

# What is promised, one after the other, for times that mean something.
trials: build kernel tools $(ETCD)
	@mkdir -p bin && rm -f $(FIGURES).*
	$(TRIAL) -run '^TestRestartTrials$$' ./cmd/lever -trials.rounds=50 -trials.seed=$(SEED)
	$(TRIAL) -run '^TestWPASupplicant$$/^restarts$$' ./cmd/lever -trials.wpa=10
	$(TRIAL) -run '^TestReturn$$|^TestSuspend$$' ./cmd/lever -trials.away=60s
	$(TRIAL) -parallel 1 -run '^TestDrift$$' ./cmd/lever
	$(TRIAL) -run '^TestDriftSequences$$' ./cmd/lever -drift.for=10m -trials.seed=$(SEED)
	$(TRIAL) -run '$(CHANNELS)' ./cmd/lever -rotation.for=30m -rotation.rate=1000 -rotation.quorum=5m
	@cat $(FIGURES).*

chaos: build kernel
	@mkdir -p bin
	$(TRIAL) -v -run '^TestChaos$$' ./cmd/lever -chaos.for=$(or $(filter-out 0,$(FOR)),3m) -chaos.seed=$(SEED)

lint: $(LINT)
	$(LINT) run ./...
	$(LINT) run --build-tags '' ./...
	$(LINT) run --build-tags deb ./internal/service
	$(LINT) run --build-tags tpm ./internal/identity
	cd $(ETCDTEST) && $(LINT) run ./...

fuzz:
	@grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | grep -v /testdata/ | \
	while IFS=: read -r file _ func; do \
		name=$${func#func }; echo "== $$(dirname $$file) $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)" </dev/null || exit 1; \
	done

sim:
	@mkdir -p bin
	$(SIM) -sim.first=$(FIRST) -sim.seeds=$(SEEDS) -sim.for=$(FOR)

mutants:
	$(GO) test -count=1 -timeout=0 -v ./internal/sim -run '^TestMutantsAreFound$$' -sim.mutants=all

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...
	cd $(ETCDTEST) && $(GO) test -run '^$$' -bench . -benchmem ./...

# A kernel with MACsec: the host's own if it has it and we are root, else
# user-mode Linux.
kernel:
	@CGO_ENABLED=0 $(GO) build -o $(UMLEXEC) ./internal/uml/umlexec
	@$(UMLEXEC) -find 2>/dev/null || { .ci/packages kernel && $(UMLEXEC) -find; }

# Commands that tests compare with, and play with.
tools:
	@.ci/packages tshark=tshark ip=iproute2 wpa_supplicant=wpasupplicant systemd-analyze=systemd swtpm=swtpm

# Later versions of nfpm build only with modules that not every proxy has.
$(NFPM):
	GOBIN=$(dir $@) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)

$(LINT):
	GOBIN=$(dir $@) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
