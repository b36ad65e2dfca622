package keys

import (
	"time"

	"github.com/lever-link/lever/internal/health"
)

// Finding is something wrong with a link's keys: the facts, without material.
// Its words are in internal/health.
type Finding struct {
	Code health.Code
	// Side is the channel concerned; meaningless for StateUnwritable,
	// StateUnreadable, KeyMaterialEqual and NoKeys.
	Side Side
	// Epoch is the one concerned, if any.
	Epoch Epoch
	// File is the file concerned, if any.
	File string
	// Where is the channel's place for the link.
	Where string
	// Detail is what was found.
	Detail string
	// HighWater is the confirmed epoch, for KeyRollback.
	HighWater Epoch
	// WhereOther is the other channel's place, for NoKeys.
	WhereOther string
	// Until is when something ends or ended.
	Until time.Time
	// Began, Due, Expires, Reason and Signers are of the age of a key: since when it
	// is in use, when the next was due, and until when, why and by whose word it may
	// be used in spite of its age.
	Began, Due, Expires time.Time
	Reason, Signers     string
	// Since is when the ring first found it.
	Since time.Time
}

// Fault words the finding for operators. What is not set reads as unknown there.
func (f Finding) Fault() health.Fault {
	args := []any{
		"channel", f.Side, "other", f.Side.Other(), "epoch", f.Epoch, "file", f.File,
		"where", f.Where, "detail", f.Detail, "high_water", f.HighWater,
		"where_a", f.Where, "where_b", f.WhereOther, "reason", f.Reason, "signers", f.Signers,
	}
	for name, at := range map[string]time.Time{"since": f.Began, "until": f.Until, "due": f.Due, "expires": f.Expires} {
		if !at.IsZero() {
			args = append(args, name, at.UTC().Format(time.RFC3339))
		}
	}
	return health.Raise(f.Code, f.Since, args...)
}

// subject is what a finding is about: the later one of the same inherits the earlier
// one's Since.
type subject struct {
	code  health.Code
	side  Side
	epoch Epoch
	file  string
}

func (f Finding) subject() subject { return subject{f.Code, f.Side, f.Epoch, f.File} }

// FindingCodes are the codes that a Ring's findings can have: a link's
// health.Set replaces exactly these after each Change.
func FindingCodes() []health.Code {
	return []health.Code{
		health.ChannelLate, health.ChannelUnreadable, health.KeyFilePermissions, health.KeyFileUnreadable, health.KeyFileMalformed,
		health.KeyFileUnexpected, health.KeyMaterialEqual, health.KeyMaterialShort, health.KeyChanged,
		health.KeyRollback, health.NoKeys, health.StateUnwritable, health.StateUnreadable,

		health.ChannelUnreachable, health.ChannelDenied, health.ChannelNotHybrid, health.CertificateExpired,
		health.CertificateEnding, health.NodeIdentity, health.BundleMalformed, health.BundleTruncated, health.BundleTampered,
		health.BundleUntrusted, health.BundleMisaddressed, health.BundleUnopened, health.BundleReplayed, health.BundleExpired,
		health.BundleStale, health.BundleInventory, health.EtcdValueMalformed, health.EtcdValueOversized, health.EtcdValueSwapped,
		health.EtcdValueStale, health.EtcdRolledBack, health.KeyServiceRefused, health.KeyServiceBehind,
		health.KeyOverdue, health.KeyAging, health.KeyTooOld, health.KeyAgeOverridden, health.KeyPending,
	}
}
