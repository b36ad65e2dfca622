package mka

// elect finds the key server among us and the live peers: the lowest priority,
// then the lowest SCI; 255 never serves (802.1X-2020 9.5).
func (p *Port) elect(pa *participant) {
	var best *peer
	live := 0
	for _, pe := range pa.peers {
		if !pe.live {
			continue
		}
		live++
		if pe.priority == NeverKeyServer {
			continue
		}
		if best == nil || pe.priority < best.priority ||
			pe.priority == best.priority && pe.sci.Less(best.sci) {
			best = pe
		}
	}
	us := p.cfg.Priority != NeverKeyServer && live > 0 &&
		(best == nil || p.cfg.Priority < best.priority ||
			p.cfg.Priority == best.priority && p.cfg.SCI.Less(best.sci))
	if us {
		best = nil
	}
	pa.server = best
	if pa.serving != us {
		pa.serving = us
		pa.sendNow = true
	}
	if live == 0 {
		return
	}
	if best == nil && !us {
		p.conditions.raise(p.now, Condition{Kind: ConditionNoKeyServer, CKN: pa.ckn})
		return
	}
	p.conditions.clear(ConditionNoKeyServer, pa.ckn)
	if sci := pa.serverSCI(p); sci != pa.announcedServer {
		pa.announcedServer = sci
		p.notice(Notice{Kind: NoticeKeyServer, CKN: pa.ckn, SCI: sci})
	}
}
