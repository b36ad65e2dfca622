package inventory

import (
	"regexp"
	"sync"
)

const apiVersion = "lever/v1"

// shape is a kind of mapping: the keys it may have and those it must have. The
// name is that of its definition in schema.json, and a test holds the two
// together.
type shape struct {
	name     string // in schema.json
	noun     string // in errors
	keys     []string
	required []string
}

var (
	fileShape = shape{"file", "an inventory file",
		[]string{"apiVersion", "policy", "channels", "sites", "nodes", "links"}, []string{"apiVersion"}}
	policyShape = shape{"policy", "policy",
		[]string{"mode", "inside", "inside_if", "cipher", "sak_rekey", "cak_epoch", "max_age", "max_age_override"}, nil}
	ageOverrideShape = shape{"maxAgeOverride", "policy.max_age_override", []string{"file", "signers"}, []string{"file", "signers"}}
	channelsShape    = shape{"channels", "channels", []string{"a", "b"}, []string{"a", "b"}}
	dirShape         = shape{"dirChannel", "a channel of type dir", []string{"type", "path"}, []string{"type", "path"}}
	bundleShape      = shape{"bundleChannel", "a channel of type bundle",
		[]string{"type", "path", "url", "signers", "threshold"}, []string{"type", "signers"}}
	etcdShape = shape{"etcdChannel", "a channel of type etcd",
		[]string{"type", "endpoints", "prefix", "ca", "certificate", "key"}, []string{"type", "endpoints", "ca", "certificate", "key"}}
	etsi014Shape = shape{"etsi014Channel", "a channel of type etsi014",
		[]string{"type", "url", "ca", "certificate", "key"}, []string{"type", "url", "ca", "certificate", "key"}}
	skipShape = shape{"skipChannel", "a channel of type skip",
		[]string{"type", "url", "ca", "certificate", "key"}, []string{"type", "url", "ca", "certificate", "key"}}
	siteShape = shape{"site", "a site", []string{"custody"}, nil}
	nodeShape = shape{"node", "a node", []string{"site", "recipients"}, []string{"site"}}
	linkShape = shape{"link", "a link",
		[]string{"id", "a", "z", "members", "segments", "override", "psk", "cipher", "mka", "allow"}, []string{"id"}}
	endShape = shape{"end", "an end",
		[]string{"node", "interface", "addresses", "secure"}, []string{"node", "interface"}}
	segmentShape = shape{"segment", "a segment",
		[]string{"custody", "site", "provider", "ref", "controls"}, nil}
	evidenceShape = shape{"evidence", "a control",
		[]string{"control", "evidence", "expires"}, []string{"control", "evidence", "expires"}}
	overrideShape = shape{"override", "an override",
		[]string{"action", "approvers", "reason", "expires"}, []string{"action"}}
	pskShape = shape{"psk", "a psk",
		[]string{"ckn", "cak_file", "not_before", "not_after"}, []string{"ckn", "cak_file"}}
	mkaShape = shape{"mka", "mka",
		[]string{"priority", "life", "hello", "destination", "ethertype", "icv_indicator", "delay_protect", "replay_window"}, nil}

	shapes = []*shape{
		&fileShape, &policyShape, &ageOverrideShape, &channelsShape, &dirShape, &bundleShape, &etcdShape, &etsi014Shape,
		&skipShape, &siteShape, &nodeShape, &linkShape, &endShape, &segmentShape, &evidenceShape, &overrideShape, &pskShape, &mkaShape,
	}

	// The kinds of channel that there are, and the shape of each.
	channelTypes  = []string{"dir", "bundle", "etcd", "etsi014", "skip"}
	channelShapes = []*shape{&dirShape, &bundleShape, &etcdShape, &etsi014Shape, &skipShape}
)

// pattern is the form of a text; its source stands in schema.json, too.
type pattern struct {
	name, source string // in schema.json
	form         string // in errors
	// compiled waits until somebody asks: each program that has an inventory in it
	// would pay for it when it starts.
	compiled func() *regexp.Regexp
}

func newPattern(name, source, form string) pattern {
	return pattern{name, source, form, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(source) })}
}

func (p *pattern) matches(s string) bool { return p.compiled().MatchString(s) }

var (
	// A name is used as a directory, in tables and in key derivation.
	namePattern = newPattern("name", `^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`,
		"up to 128 letters, digits, '.', '_' and '-', not beginning with '.'")
	// The kernel's dev_valid_name refuses more than 15 octets, '/', ':' and
	// white space; '%' starts a format in the name of a new device
	// (__dev_alloc_name).
	devicePattern = newPattern("device", `^[!-$&-.0-9;-~]{1,15}$`,
		"1 to 15 printable ASCII characters without '/', ':', '%' and spaces")
	durationPattern = newPattern("duration", `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`,
		"a duration with its unit, such as 30s or 1h")
	datePattern = newPattern("date", `^[0-9]{4}-[0-9]{2}-[0-9]{2}$`,
		"a date such as 2027-01-31")
	momentPattern = newPattern("moment", `^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2}))?$`,
		"a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z")
	cknPattern = newPattern("ckn", `^([0-9A-Fa-f]{2}){1,32}$`,
		"1 to 32 octets in hexadecimal")
	macPattern = newPattern("mac", `^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$`,
		"a MAC address such as 01:80:c2:00:00:03")
	urlPattern = newPattern("url", `^https://[^/?#@\\\s]+(/[^?#\s]*)?$`,
		"an https URL such as https://keys.example.net/lever, without user, query and fragment")
	endpointPattern = newPattern("endpoint", `^https://([^/?#@:\[\]\\\s]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?$`,
		"an https URL with a port and no path, such as https://etcd1.example.net:2379")
	// 32 octets are 43 digits, the last of which has two bits left over.
	signerPattern = newPattern("signer", `^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$`,
		"an ed25519 public key, 32 octets in base64")
	prefixPattern = newPattern("prefix", `^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){0,7}$`,
		"names of letters, digits, '.', '_' and '-' with '/' between them, such as lever or site/lever")
	recipientPattern = newPattern("recipient", `^age1(pq1)?[02-9ac-hj-np-z]{58,}$`,
		"an age recipient, as lever node show prints it: age1pq1…")

	patterns = []*pattern{&namePattern, &devicePattern, &durationPattern, &datePattern, &momentPattern, &cknPattern, &macPattern,
		&urlPattern, &endpointPattern, &signerPattern, &prefixPattern, &recipientPattern}
)
