package directory

// SetPaging makes the LDAP servers of a watch be read so many entries at a time.
func SetPaging(w *Watch, size int) {
	for _, r := range w.readers {
		r.(*LDAP).Config.PageSize = size
		if size == 0 { // an administrator of slapd has no limit
			r.(*LDAP).Config.BindDN = ""
		}
	}
}
