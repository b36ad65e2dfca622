package kmetest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// message is the error data format of ETSI GS QKD 014 V1.1.1 6.5.
func message(w http.ResponseWriter, status int, text string) {
	answer(w, status, map[string]any{"message": text, "details": []any{}})
}

type etsiKey struct {
	ID  string `json:"key_ID"`
	Key string `json:"key"`
}

// etsi014 is ETSI GS QKD 014 V1.1.1, clauses 5 and 6.
func (k *KME) etsi014(mux *http.ServeMux) {
	const root = "/api/v1/keys/{sae}/"
	mux.HandleFunc("GET "+root+"status", func(w http.ResponseWriter, r *http.Request) {
		f := k.count("status")
		stored := 100
		if f.Empty {
			stored = 0
		}
		answer(w, http.StatusOK, map[string]any{
			"source_KME_ID": "kme-" + k.node, "target_KME_ID": "kme-" + r.PathValue("sae"),
			"master_SAE_ID": k.node, "slave_SAE_ID": r.PathValue("sae"),
			"key_size": 256, "stored_key_count": stored, "max_key_count": 100, "max_key_per_request": 1,
			"max_key_size": 1024, "min_key_size": 64, "max_SAE_ID_count": 0,
		})
	})
	mux.HandleFunc(root+"enc_keys", func(w http.ResponseWriter, r *http.Request) {
		f := k.count("new")
		number, size := 1, 256
		switch r.Method {
		case http.MethodGet:
			number, size = whole(r.URL.Query().Get("number"), 1), whole(r.URL.Query().Get("size"), 256)
		case http.MethodPost:
			if f.GetOnly {
				message(w, http.StatusMethodNotAllowed, "GET alone is known here")
				return
			}
			request := struct{ Number, Size int }{1, 256}
			if json.NewDecoder(r.Body).Decode(&request) != nil {
				message(w, http.StatusBadRequest, "the key request is no JSON")
				return
			}
			number, size = request.Number, request.Size
		}
		switch {
		case number != 1 || size != 256:
			message(w, http.StatusBadRequest, "one key of 256 bits is given at a time")
		case f.Empty:
			message(w, http.StatusServiceUnavailable, "no key is available")
		default:
			id, key := k.net.give(k.node, r.PathValue("sae"), f)
			answer(w, http.StatusOK, map[string]any{
				"keys":                    []etsiKey{{id, base64.StdEncoding.EncodeToString(key)}},
				"key_container_extension": map[string]any{"of": "a later version"},
			})
		}
	})
	mux.HandleFunc(root+"dec_keys", func(w http.ResponseWriter, r *http.Request) {
		f := k.count("get")
		var ids []etsiKey
		switch r.Method {
		case http.MethodGet:
			ids = []etsiKey{{ID: r.URL.Query().Get("key_ID")}}
		case http.MethodPost:
			if f.GetOnly {
				message(w, http.StatusMethodNotAllowed, "GET alone is known here")
				return
			}
			var request struct {
				IDs []etsiKey `json:"key_IDs"`
			}
			if json.NewDecoder(r.Body).Decode(&request) != nil {
				message(w, http.StatusBadRequest, "the key ids are no JSON")
				return
			}
			ids = request.IDs
		}
		if len(ids) != 1 {
			message(w, http.StatusBadRequest, "one key is given at a time")
			return
		}
		key, ok := k.net.take(r.PathValue("sae"), k.node, ids[0].ID, f)
		if !ok {
			message(w, http.StatusBadRequest, "one or more keys specified are not found on KME")
			return
		}
		answer(w, http.StatusOK, map[string]any{"keys": []etsiKey{{ids[0].ID, base64.StdEncoding.EncodeToString(key)}}})
	})
}

// skip is draft-cisco-skip, section 4. Ids are hexadecimal digits without hyphens
// there.
func (k *KME) skip(mux *http.ServeMux) {
	type skipKey struct {
		ID  string `json:"keyId"`
		Key string `json:"key"`
	}
	mux.HandleFunc("GET /capabilities", func(w http.ResponseWriter, _ *http.Request) {
		f := k.count("capabilities")
		local := k.node
		if f.Local != "" {
			local = f.Local
		}
		answer(w, http.StatusOK, map[string]any{
			"entropy": true, "key": true, "algorithm": "test", "localSystemID": local, "remoteSystemID": []string{"r?", "*-r*"},
		})
	})
	mux.HandleFunc("GET /key", func(w http.ResponseWriter, r *http.Request) {
		f := k.count("new")
		far := r.URL.Query().Get("remoteSystemID")
		switch {
		case far == "" || whole(r.URL.Query().Get("size"), 256) != 256:
			w.WriteHeader(http.StatusBadRequest)
		case f.Empty:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			id, key := k.net.give(k.node, far, f)
			answer(w, http.StatusOK, skipKey{strings.ReplaceAll(id, "-", ""), hex.EncodeToString(key)})
		}
	})
	mux.HandleFunc("GET /key/{id}", func(w http.ResponseWriter, r *http.Request) {
		f := k.count("get")
		id := r.PathValue("id")
		if len(id) == 32 {
			id = id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
		}
		key, ok := k.net.take(r.URL.Query().Get("remoteSystemID"), k.node, id, f)
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		answer(w, http.StatusOK, skipKey{r.PathValue("id"), hex.EncodeToString(key)})
	})
	mux.HandleFunc("GET /entropy", func(w http.ResponseWriter, r *http.Request) {
		k.count("entropy")
		bits := whole(r.URL.Query().Get("minentropy"), 256)
		if bits < 1 || bits > 256 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answer(w, http.StatusOK, map[string]any{"randomStr": strings.ToUpper(hex.EncodeToString(Key("entropy"))), "minentropy": bits})
	})
}

// whole is a number in a query; absent it is the default, and -1 if it is none.
func whole(text string, absent int) int {
	if text == "" {
		return absent
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}
