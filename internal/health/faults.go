package health

// The codes, in the order of the table below.
const (
	ChannelLate        Code = "channel-late"
	ChannelUnreadable  Code = "channel-unreadable"
	KeyFilePermissions Code = "key-file-permissions"
	KeyFileUnreadable  Code = "key-file-unreadable"
	KeyFileMalformed   Code = "key-file-malformed"
	KeyFileUnexpected  Code = "key-file-unexpected"
	KeyMaterialEqual   Code = "key-material-equal"
	KeyMaterialShort   Code = "key-material-short"
	KeyChanged         Code = "key-changed"
	KeyRollback        Code = "key-rollback"
	NoKeys             Code = "no-keys"
	PSKExpired         Code = "psk-expired"
	PSKExpiring        Code = "psk-expiring"
	PSKPending         Code = "psk-pending"
	StateUnwritable    Code = "state-unwritable"
	StateUnreadable    Code = "state-unreadable"
	RunDirUnwritable   Code = "run-dir-unwritable"

	ChannelUnreachable Code = "channel-unreachable"
	ChannelDenied      Code = "channel-denied"
	ChannelNotHybrid   Code = "channel-not-hybrid"
	CertificateExpired Code = "certificate-expired"
	CertificateEnding  Code = "certificate-ending"
	NodeIdentity       Code = "node-identity"
	BundleMalformed    Code = "bundle-malformed"
	BundleTruncated    Code = "bundle-truncated"
	BundleTampered     Code = "bundle-tampered"
	BundleUntrusted    Code = "bundle-untrusted"
	BundleMisaddressed Code = "bundle-misaddressed"
	BundleUnopened     Code = "bundle-unopened"
	BundleReplayed     Code = "bundle-replayed"
	BundleExpired      Code = "bundle-expired"
	BundleStale        Code = "bundle-stale"
	BundleInventory    Code = "bundle-inventory"
	EtcdValueMalformed Code = "etcd-value-malformed"
	EtcdValueOversized Code = "etcd-value-oversized"
	EtcdValueSwapped   Code = "etcd-value-swapped"
	EtcdValueStale     Code = "etcd-value-stale"
	EtcdRolledBack     Code = "etcd-rolled-back"
	KeyServiceRefused  Code = "key-service-refused"
	KeyServiceBehind   Code = "key-service-behind"
	KeyOverdue         Code = "key-overdue"
	KeyAging           Code = "key-aging"
	KeyTooOld          Code = "key-too-old"
	KeyAgeOverridden   Code = "key-age-overridden"
	KeyPending         Code = "key-pending"

	PeerSilent    Code = "peer-silent"
	PeerLost      Code = "peer-lost"
	ICVMismatch   Code = "icv-mismatch"
	UnknownCKN    Code = "unknown-ckn"
	SuiteMismatch Code = "suite-mismatch"
	KeyServerNone Code = "key-server-none"
	ReplayedKI    Code = "replayed-ki"

	OwnSCI          Code = "own-sci"
	NotConfidential Code = "not-confidential"
	BadSAK          Code = "bad-sak"
	SAKNotTaken     Code = "sak-not-taken"
	BadCAK          Code = "bad-cak"

	SAKInstallFailed Code = "sak-install-failed"
	PNsUsedUp        Code = "pns-used-up"
	SecYDrift        Code = "secy-drift"
	FenceDrift       Code = "fence-drift"
	ParentDrift      Code = "parent-drift"
	TrafficMissing   Code = "traffic-missing"
	FenceMissing     Code = "fence-missing"
	FenceOpen        Code = "fence-open"
	FenceForeign     Code = "fence-foreign"
	FenceWeak        Code = "fence-weak"
	ParentMissing    Code = "parent-missing"
	ParentDown       Code = "parent-down"
	ParentEnslaved   Code = "parent-enslaved"
	DeviceForeign    Code = "device-foreign"
	KernelLacking    Code = "kernel-lacking"
	LinkFailed       Code = "link-failed"
	AddressMissing   Code = "address-missing"
	TakenDown        Code = "taken-down"
	TaskRestarted    Code = "task-restarted"
	TaskWedged       Code = "task-wedged"

	InventoryInvalid  Code = "inventory-invalid"
	LinkRemoved       Code = "link-removed"
	Exempt            Code = "exempt"
	EvidenceExpiring  Code = "evidence-expiring"
	BelowPolicyCipher Code = "below-policy-cipher"
)

// table is every fault there is. A text says what was found; a next step says
// what a person does about it, at this end unless it says otherwise.
var table = []Declared{
	// Keys.
	{
		Code: ChannelLate, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"channel", "epoch"},
		Text: "epoch {epoch} has arrived over channel {other} but not over channel {channel} ({where})",
		Next: "see that channel {channel} delivers epoch {epoch} to {where} on this node; until then the link stays on the older key, and an epoch is never used from one channel alone",
	},
	{
		Code: ChannelUnreadable, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"channel"},
		Text: "channel {channel} cannot be read at {where}: {detail}; keys that it has already delivered stay in use",
		Next: "make {where} readable by the agent and writable by its owner alone (mode 0700)",
	},
	{
		Code: KeyFilePermissions, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"file"},
		Text: "key file {file} is refused: {detail}",
		Next: "treat the key as disclosed and reissue it (lever keys issue --channel {channel} --reissue EPOCH) with mode 0600 and the agent's user or root as owner",
	},
	{
		Code: KeyFileUnreadable, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "key file {file} cannot be read: {detail}",
		Next: "give it mode 0600 and the agent's user as owner; when the disk is at fault, deliver it again",
	},
	{
		Code: KeyFileMalformed, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "key file {file} is refused: {detail}",
		Next: "write it again, complete, under a temporary name starting with a dot, and rename it into place; it holds 64 hexadecimal digits and a newline",
	},
	{
		Code: KeyFileUnexpected, Severity: Warning, Promise: AlwaysExplained, Subject: []string{"file"},
		Text: "{file} is not a key file and is ignored: {detail}",
		Next: "name key files EPOCH.GENERATION.key, for example 42.0.key, and remove what does not belong in that directory",
	},
	{
		Code: KeyMaterialEqual, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"epoch"},
		Text: "both channels deliver the same material for epoch {epoch}, so one of them alone would know the key: refused",
		Next: "issue epoch {epoch} again as a new generation, each channel's on its own system (lever keys issue --channel … --reissue), and find out how one file got into both",
	},
	{
		Code: KeyMaterialShort, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"channel", "epoch"},
		Text: "channel {channel} delivers fewer than 32 octets for epoch {epoch}: refused",
		Next: "issue epoch {epoch} on channel {channel} again as a new generation with 32 random octets",
	},
	{
		Code: KeyChanged, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"channel", "epoch"},
		Text: "the material of epoch {epoch} on channel {channel} ({file}) is not what it was when the epoch was first used: refused, for one CKN must never name two keys",
		Next: "issue new material under channel {channel}'s next generation (lever keys issue --channel {channel} --reissue EPOCH) for every end, the other channel's stays; find out who replaced the file",
	},
	{
		Code: KeyRollback, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"channel"},
		Text: "the newest epoch on channel {channel} ({where}) is {epoch}, older than epoch {high_water} which both ends have confirmed: refused",
		Next: "issue an epoch newer than {high_water} on both channels; if {where} was restored from a backup, bring it up to date",
	},
	{
		Code: NoKeys, Severity: Critical, Promise: NeverAnOutage,
		Text: "neither channel has delivered a key: a is {where_a}, b is {where_b}",
		Next: "issue one epoch on each channel (lever keys issue --channel a …, then b on another system) and deliver both to this node and the far end",
	},
	{
		Code: PSKExpired, Severity: Critical, Promise: NeverAnOutage, Subject: []string{"ckn"},
		Text: "the static key {ckn} expired at {until}: {detail}",
		Next: "see that the key that follows it is valid now in psk: of the link and at the far end, and that both have the same; a gap between two keys is an outage as soon as the agent has nothing to resume",
	},
	{
		Code: PSKExpiring, Severity: Warning, Promise: NeverAnOutage,
		Text: "the last static key {ckn} of this link expires at {until}, and no other is valid then",
		Next: "add its successor to psk: of the link and to the far end, valid from before {until}, and restart the agent after lever suspend",
	},
	{
		Code: PSKPending, Severity: Critical, Promise: AlwaysExplained,
		Text: "no static key of this link is valid before {from}",
		Next: "wait, or have not_before of the first key in psk: begin earlier, here and at the far end; look at the clock when {from} is past",
	},
	{
		Code: StateUnwritable, Severity: Critical, Promise: NeverOneKeyHolder,
		Text: "the confirmed epoch cannot be recorded: {detail}; after a restart an older key might be accepted",
		Next: "make the state directory writable and free space on it",
	},
	{
		Code: StateUnreadable, Severity: Critical, Promise: NeverOneKeyHolder,
		Text: "the record of the confirmed epoch is unusable: {detail}; the link runs without protection against older epochs until the next one is confirmed",
		Next: "revoke every epoch but the newest on both channels (lever keys revoke), then restore or remove the record; the next confirmed epoch writes it anew",
	},
	{
		Code: RunDirUnwritable, Severity: Warning, Promise: NeverAnOutage,
		Text: "the run directory cannot be written: {detail}; a restart of the agent will negotiate afresh instead of resuming",
		Next: "make the run directory writable (a tmpfs such as /run/lever, mode 0700) and free space on it",
	},

	// The channels that are more than a directory, and the age of keys.
	{
		Code: ChannelUnreachable, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"channel"},
		Text: "channel {channel} cannot be reached at {where}: {detail}; keys that it has already delivered stay in use",
		Next: "see that {where} answers and that this node has a way to it; new keys and revocations wait until then, and a link whose key becomes too old is closed",
	},
	{
		Code: ChannelDenied, Severity: Critical, Promise: NeverAnOutage, Subject: []string{"channel"},
		Text: "channel {channel} refuses this node at {where}: {detail}",
		Next: "grant it what it needs (lever keys grant --channel {channel}), unless the node was revoked",
	},
	{
		Code: ChannelNotHybrid, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"channel"},
		Text: "{where} of channel {channel} does not agree on keys in a way that is safe against quantum computers: {detail}",
		Next: "run a server at {where} that speaks TLS 1.3 with X25519MLKEM768 (etcd from 3.6 on does)",
	},
	{
		Code: CertificateExpired, Severity: Critical, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "the certificate {file} of channel {channel} has expired on {until}; a connection that stands goes on, a new one is refused",
		Next: "put a new certificate, and its key, in the place of {file}: it is taken up by itself",
	},
	{
		Code: CertificateEnding, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "the certificate {file} of channel {channel} ends on {until}",
		Next: "renew it before {until}: a new one in its place is taken up by itself",
	},
	{
		Code: NodeIdentity, Severity: Critical, Promise: NeverAnOutage, Subject: []string{"channel"},
		Text: "this node cannot open what channel {channel} seals to it: {detail}",
		Next: "make an identity (lever node init), enrol its public part in the inventory (lever node enrol), and have channel {channel} issued again",
	},
	{
		Code: BundleMalformed, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "{file} of channel {channel} is refused, for it is no bundle: {detail}",
		Next: "deliver it again as the issuer wrote it, and look at what carries it",
	},
	{
		Code: BundleTruncated, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "{file} of channel {channel} is refused, for it is cut off: {detail}",
		Next: "deliver it again, complete, under another name, and rename it into place",
	},
	{
		Code: BundleTampered, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"file"},
		Text: "{file} of channel {channel} is refused, for it is not what its issuer signed: {detail}",
		Next: "find out who changed it on its way, and deliver it again from the issuer",
	},
	{
		Code: BundleUntrusted, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"file"},
		Text: "{file} of channel {channel} is refused, for too few of the issuers that the inventory trusts have signed it: {detail}",
		Next: "have the missing issuers sign it (lever keys sign), or find out who else issues bundles; trust is in signers and threshold of channel {channel}",
	},
	{
		Code: BundleMisaddressed, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"file"},
		Text: "{file} of channel {channel} is refused, for it is not this node's: {detail}",
		Next: "deliver to each node what is in the directory of its name, and nothing else",
	},
	{
		Code: BundleUnopened, Severity: Critical, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "{file} of channel {channel} cannot be opened: {detail}",
		Next: "compare lever node show with the node's recipients in the inventory; when they agree, have the bundle issued again",
	},
	{
		Code: BundleReplayed, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"file"},
		Text: "{file} of channel {channel} is refused, for a later one was seen already: {detail}",
		Next: "bring {where} up to date if it was restored from a backup; otherwise somebody holds back what the issuer says, a revocation perhaps",
	},
	{
		Code: BundleExpired, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "{file} of channel {channel} is refused, for its time is over: {detail}",
		Next: "issue the next epochs (lever keys issue --channel {channel}); look at this node's clock if it was issued just now",
	},
	{
		Code: BundleStale, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"channel"},
		Text: "what channel {channel} delivers at {where} should have been renewed by {until}: nobody knows whether something was revoked since; keys that it has delivered stay in use",
		Next: "see that the issuer runs (lever keys serve --channel {channel}) and that what it writes arrives at {where}",
	},
	{
		Code: BundleInventory, Severity: Warning, Promise: AlwaysExplained, Subject: []string{"channel"},
		Text: "channel {channel} was issued from an inventory in which this node has other links or other peers: {detail}",
		Next: "bring the inventory at the issuer up to date, and issue again",
	},
	{
		Code: EtcdValueMalformed, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "the value of {file} on channel {channel} is refused: {detail}",
		Next: "remove it (lever keys revoke) and issue another generation (lever keys issue --channel {channel} --reissue EPOCH); find out who else writes there",
	},
	{
		Code: EtcdValueOversized, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "the value of {file} on channel {channel} is refused for its size: {detail}",
		Next: "remove it, and find out who else writes there",
	},
	{
		Code: EtcdValueSwapped, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"file"},
		Text: "the value of {file} on channel {channel} is refused, for it was issued for something else: {detail}",
		Next: "find out who moved it: nobody but the issuer may write beneath the channel's prefix (lever keys grant)",
	},
	{
		Code: EtcdValueStale, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"file"},
		Text: "the value of {file} on channel {channel} is refused, for its time is over: {detail}",
		Next: "issue the next epochs (lever keys issue --channel {channel}); look at this node's clock if it was issued just now",
	},
	{
		Code: EtcdRolledBack, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"channel"},
		Text: "the etcd cluster of channel {channel} has gone back: {detail}; what it has lost is not held against keys in use",
		Next: "was it restored from a backup? Then issue again what is missing, and revoke again what was revoked since",
	},
	{
		Code: KeyServiceRefused, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"channel"},
		Text: "the key service of channel {channel} at {where} gives no key: {detail}",
		Next: "look at the key service's own log and at its supply of keys; the link stays on the key that it has",
	},
	{
		Code: KeyServiceBehind, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"channel", "epoch"},
		Text: "the key service of channel {channel} at {where} does not know the key that the far end has named for epoch {epoch}: {detail}",
		Next: "see that the two ends' key services are connected and have the same keys; another is asked for meanwhile",
	},
	{
		Code: KeyOverdue, Severity: Warning, Promise: NeverAnOutage,
		Text: "the key of epoch {epoch} is in use since {since} and should have been replaced by {due}: no later one has been confirmed",
		Next: "look at the other faults of this link; if there are none, see that the issuers of both channels run (lever keys serve)",
	},
	{
		Code: KeyAging, Severity: Warning, Promise: NeverAnOutage,
		Text: "the key of epoch {epoch} is in use since {since}; at {until} it will be too old and the link will be closed",
		Next: "issue the next epoch on both channels before {until}, or have an override signed by two (lever keys override)",
	},
	{
		Code: KeyTooOld, Severity: Critical, Promise: NeverOneKeyHolder,
		Text: "the key of epoch {epoch} is in use since {since} and too old since {until}: the link is closed",
		Next: "issue a later epoch on both channels; if that takes too long, have an override signed by two (lever keys override)",
	},
	{
		Code: KeyAgeOverridden, Severity: Warning, Promise: AlwaysExplained,
		Text: "the key of epoch {epoch} is too old since {until} and stays in use until {expires}, for {reason} (signed by {signers})",
		Next: "issue a later epoch on both channels before {expires}",
	},
	{
		Code: KeyPending, Severity: Critical, Promise: AlwaysExplained,
		Text: "no epoch of this link that both channels have delivered has begun: the next is {epoch}, from {until} on",
		Next: "wait, or issue an epoch that begins earlier on both channels; look at this node's clock when {until} is past",
	},

	// MKA.
	{
		Code: PeerSilent, Severity: Critical, Promise: AlwaysExplained,
		Text: "no MKPDU has come from the far end on {interface} since {since}",
		Next: "check that the agent runs at the far end, that {interface} is wired to it, and that equipment in between passes EAPOL (EtherType 888E, destination {destination})",
	},
	{
		Code: PeerLost, Severity: Critical, Promise: AlwaysExplained, Subject: []string{"peer"},
		Text: "peer {peer} on {interface} has fallen silent after having been live; last heard {since}; {traffic}",
		Next: "look at the far end's agent and at the path: the link comes back by itself when its MKPDUs do",
	},
	{
		Code: ICVMismatch, Severity: Critical, Promise: AlwaysExplained, Subject: []string{"ckn"},
		Text: "MKPDUs from {peer} name our CKN {ckn} (epoch {epoch}) but fail their integrity check: the material of channel a or b differs between the ends, or somebody forges them",
		Next: "compare the fingerprints of epoch {epoch} (lever keys list --channel a, then b): of key files at both ends, of bundles and etcd where they are issued; reissue it on the channel that differs, or is in doubt",
	},
	{
		Code: UnknownCKN, Severity: Warning, Promise: AlwaysExplained, Subject: []string{"ckn"},
		Text: "{peer} speaks of CKN {ckn}, which this end does not have: {detail}",
		Next: "see that both channels deliver the same epochs to both ends; compare lever keys list at both, and check that both inventories give this link the same id and nodes",
	},
	{
		Code: SuiteMismatch, Severity: Critical, Promise: NeverPlain,
		Text: "peer {peer} {offers} {offered}, but the device here was made for {cipher}: there is no key for both",
		Next: "give both ends the same cipher in their inventories; on an external link set it to what the far end can do",
	},
	{
		Code: KeyServerNone, Severity: Critical, Promise: AlwaysExplained,
		Text: "peers are live on {interface} but none of them is willing to be key server (every priority is 255)",
		Next: "give one end a key server priority below 255",
	},
	{
		Code: ReplayedKI, Severity: Critical, Promise: NeverSameNonce, Subject: []string{"ki"},
		Text: "the key server {peer} distributes key {ki} again, which this end has used before: not installed, for its packet numbers are spent",
		Next: "restart MKA at the far end so that it takes a new member identifier or key number; report this to its vendor",
	},
	{
		Code: OwnSCI, Severity: Critical, Promise: AlwaysExplained,
		Text: "MKPDUs with our own SCI arrive on {interface} from {peer}: the link is looped, or two agents run for one end",
		Next: "look for a loop on {interface} and for a second agent or a cloned address at {peer}",
	},
	{
		Code: NotConfidential, Severity: Critical, Promise: NeverPlain,
		Text: "the key server {peer} distributes a key without confidentiality, or with an offset that leaves octets in clear: not installed",
		Next: "set the far end to encrypt with confidentiality offset 0",
	},
	{
		Code: BadSAK, Severity: Critical, Promise: AlwaysExplained,
		Text: "the key that {peer} distributes cannot be unwrapped: {detail}",
		Next: "the far end derives its KEK differently although its MKPDUs verify: report this to its vendor with a capture",
	},
	{
		Code: SAKNotTaken, Severity: Critical, Promise: AlwaysExplained,
		Text: "the far end on {interface} speaks MKA with us and does not take the key that this end distributes, for {cipher}",
		Next: "look at the far end's faults: most often its cipher is another one; give both ends the same in their inventories, or set the link's cipher to what the far end can do",
	},
	{
		Code: BadCAK, Severity: Critical, Promise: NeverOneKeyHolder, Subject: []string{"ckn"},
		Text: "the CAK named {ckn} is not used: {detail}",
		Next: "issue another under a new generation",
	},

	// Kernel and interfaces.
	{
		Code: SAKInstallFailed, Severity: Critical, Promise: NeverAnOutage,
		Text: "the kernel refused a key on {interface}: {detail}; the previous one stays in use",
		Next: "read the kernel's message; when it persists, restart the agent, and report it with the output of ip -s macsec show",
	},
	{
		Code: PNsUsedUp, Severity: Critical, Promise: NeverSameNonce,
		Text: "the packet numbers of the SAK on {interface} are used up: nothing is sent until another SAK is in use",
		Next: "find out why the key server distributed none in time: look at the far end's status and log; ciphers with XPN have numbers for centuries",
	},
	{
		Code: SecYDrift, Severity: Warning, Promise: NeverPlain,
		Text: "{interface} no longer was as the agent had set it: {detail}; put right",
		Next: "find out what else changes {interface} (ip macsec, systemd-networkd, NetworkManager, another MKA daemon) and keep it away",
	},
	{
		Code: FenceDrift, Severity: Critical, Promise: NeverPlain,
		Text: "the fence on {interface} was changed by somebody else: {detail}; closed again, and until then plain frames may have passed",
		Next: "find out what else changes tc filters on {interface} and keep it away",
	},
	{
		Code: ParentDrift, Severity: Warning, Promise: AlwaysExplained,
		Text: "{interface} has changed beneath the link: {detail}",
		Next: "nothing, if it was you; else find out what changes {interface}",
	},
	{
		Code: TrafficMissing, Severity: Critical, Promise: AlwaysExplained, Subject: []string{"peer"},
		Text: "MKA is content with {peer} but no data arrives from it on {interface}: {detail}",
		Next: "look at the far end's device, first at its cipher suite: some equipment agrees on {cipher} in MKA and runs another suite in its kernel, or none; compare the counters at both ends (ip -s macsec show)",
	},
	{
		Code: FenceMissing, Severity: Critical, Promise: NeverPlain,
		Text: "the filters that keep plain frames off {interface} cannot be put in place: {detail}",
		Next: "correct what the message names (a missing module, somebody else's filter); {interface} is held down as long as plain frames could pass",
	},
	{
		Code: FenceOpen, Severity: Warning, Promise: NeverPlain,
		Text: "the inventory says mode monitor: plain frames may pass on {interface}; {detail}",
		Next: "set policy mode enforce when every link of this node is secured",
	},
	{
		Code: FenceForeign, Severity: Critical, Promise: NeverPlain, Subject: []string{"detail"},
		Text: "a tc filter that is not the fence's comes before it on {interface} and may let plain frames through: {detail}",
		Next: "remove it, or give it a greater priority number than the fence's; with mode enforce the agent removes it",
	},
	{
		Code: FenceWeak, Severity: Warning, Promise: NeverPlain,
		Text: "the fence on {interface} goes by EtherType alone: {detail}",
		Next: "load or install the kernel module cls_bpf and restart the agent; until then frames of a device on which somebody turns encryption off leave readable until it is put right",
	},
	{
		Code: ParentMissing, Severity: Critical, Promise: AlwaysExplained,
		Text: "there is no interface {interface} on this node",
		Next: "correct the interface's name in the inventory, or plug in or create it: the agent goes on when it appears",
	},
	{
		Code: ParentDown, Severity: Critical, Promise: AlwaysExplained,
		Text: "{interface} is down: {detail}",
		Next: "set it up (ip link set {interface} up) or look at the cable and the far end",
	},
	{
		Code: ParentEnslaved, Severity: Critical, Promise: NeverPlain,
		Text: "{interface} is a port of {master}: MACsec cannot sit beneath it there",
		Next: "take {interface} out of {master} and put its MACsec device {device} in instead",
	},
	{
		Code: DeviceForeign, Severity: Critical, Promise: NeverPlain,
		Text: "{device} exists on {interface} but was not made by Lever: {detail}",
		Next: "remove it (ip link del {device}) if nothing uses it, or give the link another name with secure: in the inventory",
	},
	{
		Code: KernelLacking, Severity: Critical, Promise: NeverPlain,
		Text: "the kernel cannot do {feature}: {detail}",
		Next: "load or install the module (modprobe macsec; cls_bpf, act_gact, sch_ingress for the fence) or run a kernel that has it",
	},
	{
		Code: LinkFailed, Severity: Critical, Promise: AlwaysExplained,
		Text: "the link on {interface} could not be set up: {detail}",
		Next: "the agent tries again every second; correct what the message names",
	},
	{
		Code: AddressMissing, Severity: Critical, Promise: NeverAnOutage,
		Text: "{interface} has not all of its addresses: {detail}",
		Next: "correct what the message names (sysctl net.ipv6.conf.*.disable_ipv6, the addresses in the inventory); the agent tries again every second",
	},
	{
		Code: TakenDown, Severity: Critical, Promise: NeverPlain,
		Text: "lever down has removed the device and the fence: plain frames may pass on {interface}",
		Next: "restart the agent to secure the link again",
	},
	{
		Code: TaskRestarted, Severity: Warning, Promise: NeverAnOutage,
		Text: "the agent's task for this link broke off {count} times, the last time at {at}, and was started again: {detail}",
		Next: "report this to the Lever project with the agent's log, which has the stack; the fault ends when the link has been well for 10 minutes",
	},
	{
		Code: TaskWedged, Severity: Critical, Promise: NeverAnOutage,
		Text: "the agent's task for this link has not come round since {at}: {detail}; what is in the kernel carries on",
		Next: "look for a system call that does not return (the kernel's log, cat /proc/PID/task/*/stack); where a service manager watches the agent it is restarted, which costs no frame, otherwise restart it",
	},

	// Inventory.
	{
		Code: InventoryInvalid, Severity: Critical, Promise: AlwaysExplained,
		Text: "the inventory was not accepted: {detail}; the last good one stays in force",
		Next: "run lever check on it and correct what it lists",
	},
	{
		Code: LinkRemoved, Severity: Warning, Promise: NeverPlain,
		Text: "this link is no longer in the inventory: its keys and its device are gone, and plain frames stay barred from {interface}",
		Next: "run lever down {link} if {interface} may carry plain frames, or put the link back into the inventory",
	},
	{
		Code: Exempt, Severity: Info, Promise: NeverPlain,
		Text: "this link is exempt from encryption until {until}: {reason} (approved by {approvers})",
		Next: "encrypt it before {until}; after that date the verdict is encrypt",
	},
	{
		Code: EvidenceExpiring, Severity: Warning, Promise: NeverAnOutage, Subject: []string{"evidence"},
		Text: "the evidence for {evidence} expires on {until}; from then on the verdict is encrypt",
		Next: "renew the evidence in the inventory, or prepare both ends to encrypt",
	},
	{
		Code: BelowPolicyCipher, Severity: Warning, Promise: NeverPlain,
		Text: "the link runs {cipher}, below the policy's {policy}, because its external end asks for it",
		Next: "raise the far end to {policy}, then remove cipher: from the link",
	},
}
