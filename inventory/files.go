package inventory

// File is one file of an inventory: its name as [Load] would give it, and what is
// in it.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// ReadFiles reads the files of an inventory without looking at what is in them, for
// who wants to keep what an inventory was made of. The error is of type [Errors].
func ReadFiles(path string) ([]File, error) {
	var found findings
	var files []File
	for _, f := range listFiles(path, &found) {
		data, err := readFile(f)
		if err != nil {
			found.errs = append(found.errs, fileError(f, "reading the inventory", err))
			continue
		}
		files = append(files, File{f, data})
	}
	if len(found.errs) > 0 {
		found.sort()
		return nil, found.errs
	}
	return files, nil
}

// ParseFiles makes an inventory of files that were read before. Nothing is read
// from disk.
func ParseFiles(files []File, opts ...Option) (*Inventory, error) {
	if len(files) == 0 {
		return nil, Errors{{Msg: "parsing an inventory: there is no file"}}
	}
	docs := make([]document, len(files))
	for i, f := range files {
		docs[i] = document{file: f.Name, data: f.Data}
	}
	return build(docs, &findings{}, opts)
}
