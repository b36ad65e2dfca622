package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The names of etcd's roles and users. A user has the name of its certificate's
// Common Name and no password.
const (
	rootName   = "root"
	issuerRole = "lever-issuer"
)

// nodeRole is the role of a node, by the name of its user.
func nodeRole(node string) string { return "lever-node-" + node }

// roleGrant is a role with the one range of names that it has.
type roleGrant struct {
	role, key, end string
	kind           clientv3.PermissionType
}

// Grant makes the cluster let each node read what is its own and nothing else, and
// the issuers read and write beneath the prefix; then it turns access control on. It
// returns what it has changed, in words, also when it fails half way; where all is
// as it must be that is nothing. It takes root's certificate, one with the Common
// Name root, also before access control is on: with another it would shut out whoever
// has turned it on.
//
// Nodes that were revoked get nothing. Roles of nodes that are not among these stay as
// they are: see RevokeAccess.
func (a *Admin) Grant(ctx context.Context, nodes, issuers []string) (changes []string, err error) {
	fail := func(err error) ([]string, error) {
		return changes, fmt.Errorf("granting access to etcd: %w", err)
	}
	for _, name := range slices.Concat(nodes, issuers) {
		if err := validName("node", name); err != nil {
			return fail(err)
		}
		if name == rootName {
			return fail(fmt.Errorf("%q is etcd's own superuser: name the node or the issuer otherwise", name))
		}
	}
	for _, name := range issuers {
		if slices.Contains(nodes, name) {
			return fail(fmt.Errorf("%q is a node: an issuer needs a certificate of its own, with another Common Name", name))
		}
	}
	if err := a.checkRoot(); err != nil {
		return fail(err)
	}
	gone, err := a.RevokedNodes(ctx)
	if err != nil {
		return fail(err)
	}
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return slices.Contains(gone, n) })
	g := granter{a: a, changed: func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }}
	if err := g.look(ctx); err != nil {
		return fail(err)
	}
	whole := a.names.prefix + "/"
	err = g.role(ctx, roleGrant{issuerRole, whole, clientv3.GetPrefixRangeEnd(whole), clientv3.PermissionType(clientv3.PermReadWrite)})
	for _, name := range issuers {
		if err == nil {
			err = g.user(ctx, name, issuerRole)
		}
	}
	for _, name := range nodes {
		if err == nil {
			own := a.names.node(name)
			err = g.role(ctx, roleGrant{nodeRole(name), own, clientv3.GetPrefixRangeEnd(own), clientv3.PermissionType(clientv3.PermRead)})
		}
		if err == nil {
			err = g.user(ctx, name, nodeRole(name))
		}
	}
	if err == nil && !g.roles[rootName] {
		err = g.make(ctx, "role "+rootName, func(ctx context.Context) error { _, err := a.client.RoleAdd(ctx, rootName); return err })
	}
	if err == nil {
		err = g.user(ctx, rootName, rootName)
	}
	if err == nil && !g.enabled {
		// Last, for afterwards only root may do what was done before.
		err = a.persist(ctx, "turning etcd's access control on", func(ctx context.Context) error { _, err := a.client.AuthEnable(ctx); return err })
		if err == nil {
			g.changed("turned access control on")
		}
	}
	if err != nil {
		return fail(err)
	}
	return changes, nil
}

// checkRoot refuses a certificate that is not root's.
func (a *Admin) checkRoot() error {
	id, err := a.tls.files.load()
	if err != nil {
		return err
	}
	if name := id.pair.Leaf.Subject.CommonName; name != rootName {
		return fmt.Errorf("%w: the certificate %s is that of %q; give root's, with the Common Name %s", ErrDenied, a.cfg.Certificate, name, rootName)
	}
	return nil
}

// granter knows what there is.
type granter struct {
	a            *Admin
	enabled      bool
	users, roles map[string]bool
	changed      func(format string, args ...any)
}

func (g *granter) look(ctx context.Context) error {
	return g.a.persist(ctx, "looking at etcd's users and roles", func(ctx context.Context) error {
		state, err := g.a.client.AuthStatus(ctx)
		if err != nil {
			return err
		}
		users, err := g.a.client.UserList(ctx)
		if err != nil {
			return err
		}
		roles, err := g.a.client.RoleList(ctx)
		if err != nil {
			return err
		}
		g.enabled, g.users, g.roles = state.Enabled, set(users.Users), set(roles.Roles)
		return nil
	})
}

func set(names []string) map[string]bool {
	return maps.Collect(func(yield func(string, bool) bool) {
		for _, n := range names {
			if !yield(n, true) {
				return
			}
		}
	})
}

// make does what another run may have done already.
func (g *granter) make(ctx context.Context, what string, request func(context.Context) error) error {
	done := false
	err := g.a.persist(ctx, "adding "+what, func(ctx context.Context) error {
		err := request(ctx)
		done = err == nil || done
		if errors.Is(err, rpctypes.ErrUserAlreadyExist) || errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
			return nil
		}
		return err
	})
	if err == nil && done {
		g.changed("added %s", what)
	}
	return err
}

// role sees that a role has the one permission that it is to have, and no other.
func (g *granter) role(ctx context.Context, r roleGrant) error {
	c := g.a.client
	if !g.roles[r.role] {
		if err := g.make(ctx, "role "+r.role, func(ctx context.Context) error { _, err := c.RoleAdd(ctx, r.role); return err }); err != nil {
			return err
		}
	}
	what := "granting role " + r.role + " its keys"
	return g.a.persist(ctx, what, func(ctx context.Context) error {
		is, err := c.RoleGet(ctx, r.role)
		if err != nil {
			return err
		}
		granted := false
		for _, p := range is.Perm {
			if string(p.Key) == r.key && string(p.RangeEnd) == r.end && p.PermType == authpb.Permission_Type(r.kind) {
				granted = true
				continue
			}
			if _, err := c.RoleRevokePermission(ctx, r.role, string(p.Key), string(p.RangeEnd)); err != nil {
				return err
			}
			g.changed("took %s of %q from role %s", p.PermType, p.Key, r.role)
		}
		if granted {
			return nil
		}
		if _, err := c.RoleGrantPermission(ctx, r.role, r.key, r.end, r.kind); err != nil {
			return err
		}
		g.changed("gave role %s %s of %q", r.role, authpb.Permission_Type(r.kind), r.key)
		return nil
	})
}

// user sees that a user has the one role that it is to have, and no other.
func (g *granter) user(ctx context.Context, name, role string) error {
	c := g.a.client
	if !g.users[name] {
		err := g.make(ctx, "user "+name, func(ctx context.Context) error {
			_, err := c.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
			return err
		})
		if err != nil {
			return err
		}
		g.users[name] = true
	}
	return g.a.persist(ctx, "giving user "+name+" its role", func(ctx context.Context) error {
		is, err := c.UserGet(ctx, name)
		if err != nil {
			return err
		}
		for _, r := range is.Roles {
			if r == role {
				continue
			}
			if _, err := c.UserRevokeRole(ctx, name, r); err != nil {
				return err
			}
			g.changed("took role %s from user %s", r, name)
		}
		if slices.Contains(is.Roles, role) {
			return nil
		}
		if _, err := c.UserGrantRole(ctx, name, role); err != nil {
			return err
		}
		g.changed("gave user %s role %s", name, role)
		return nil
	})
}

// RevokeAccess removes a node's user and role, so that its certificate opens nothing
// any more. It takes root's certificate, and reports whether there was anything.
func (a *Admin) RevokeAccess(ctx context.Context, node string) (existed bool, err error) {
	if err := validName("node", node); err != nil || node == rootName {
		return false, errors.Join(err, fmt.Errorf("revoking the access of %q: it is no node", node))
	}
	err = a.persist(ctx, "removing user "+node, func(ctx context.Context) error {
		_, err := a.client.UserDelete(ctx, node)
		existed = existed || err == nil
		if errors.Is(err, rpctypes.ErrUserNotFound) {
			return nil
		}
		return err
	})
	if err == nil {
		err = a.persist(ctx, "removing role "+nodeRole(node), func(ctx context.Context) error {
			_, err := a.client.RoleDelete(ctx, nodeRole(node))
			existed = existed || err == nil
			if errors.Is(err, rpctypes.ErrRoleNotFound) {
				return nil
			}
			return err
		})
	}
	if err != nil {
		return existed, fmt.Errorf("revoking the access of node %q: %w", node, err)
	}
	return existed, nil
}
