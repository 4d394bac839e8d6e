package optim

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
)

var update = flag.Bool("update", false, "write the golden files")

func show(all []Mapping, problems []string) string {
	var out strings.Builder
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, m := range all {
		fmt.Fprintf(&out, "%d: %s %s +%s %s set %s trunk %s %s %s\n", m.Line, m.Extension, m.Application, or(m.CountryCode), or(m.Number),
			or(m.ConfigSet), or(m.TrunkSelect), or(m.Mode), or(m.Allowed))
	}
	for _, p := range problems {
		fmt.Fprintln(&out, p)
	}
	return out.String()
}

func TestReport(t *testing.T) {
	f, err := os.Open("testdata/report.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, problems, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	got := show(all, problems)
	if *update {
		if err := os.WriteFile("testdata/report.golden", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/report.golden")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
}

func TestCSV(t *testing.T) {
	want := "2: 4750 OPS +- 4750 set 1 trunk aar both all\n3: 4750 EC500 +1 7325550142 set - trunk - - -\n"
	for name, text := range map[string]string{
		"as exported": "Station Extension,Appl,CC,Phone Number,Config Set,Trunk Select,Mapping Mode,Calls Allowed\n4750,OPS,,4750,1 /,aar,both,all\n4750,EC500,1,732-555-0142\n",
		"other words, another order": "\ufeffapplication;extension;country code;telephone number;configuration set;trunk;mode;calls;remark\r\n" +
			"ops;\"4750\";;4750;1;aar;both;all;x\r\nEC500;4750;+1;(732) 555-0142;;;;;\r\n;;;;\r\n",
		"tabs": "Appl\tStation Extension\tCC\tPhone Number\tConfig Set\tTrunk Select\tMapping Mode\tCalls Allowed\nOPS\t4750\t\t4750\t1\taar\tboth\tall\nEC500\t4750\t1\t7325550142\n",
	} {
		t.Run(name, func(t *testing.T) {
			all, problems, err := Read(strings.NewReader(text))
			got := strings.ReplaceAll(show(all, problems), "set 1 /", "set 1")
			if err != nil || got != want {
				t.Errorf("%v\n%s", err, got)
			}
		})
	}
}

func TestWhatIsNoMapping(t *testing.T) {
	head := "Station Extension,Appl,Phone Number\n"
	for name, test := range map[string]struct{ text, err, problem string }{
		"nothing":            {text: "", err: "no station mapping is in the file"},
		"another report":     {text: "list station\n\nExt   Port   Name\n4750  S0001  Ann\n", err: "no station mapping is in the file"},
		"not text":           {text: "PK\x03\x04\x00", err: "no text"},
		"not UTF-8":          {text: "\xff\xfe", err: "no text"},
		"too large":          {text: strings.Repeat("x", MaxBytes+1), err: "no station mapping"},
		"a long line":        {text: "Station Appl CC Phone Number\n" + strings.Repeat("4", maxLine+1), err: "a line of more than"},
		"too many":           {text: head + strings.Repeat("1,OPS,1\n", MaxMappings+1), err: "more than 200000 mappings"},
		"no application":     {text: head + "4750,,4750\n", problem: "line 2: extension 4750 has no application"},
		"a wrong extension":  {text: head + "ann,OPS,4750\n", problem: `line 2: "ann" is no extension`},
		"a long number":      {text: head + "4750,OPS," + strings.Repeat("1", 31) + "\n", problem: "is no number"},
		"a wrong number":     {text: head + "4750,OPS,sip:4750\n", problem: `"sip:4750" is no number`},
		"a wrong country":    {text: "Extension,Appl,CC,Phone\n4750,OPS,12345,1\n", problem: `"12345" is no country code`},
		"a wrong word":       {text: head + "4750,O\x1bS,4750\n", problem: "is no application"},
		"no such heading":    {text: "Extension,Name,Port\n1,2,3\n", err: "the heading should name"},
		"many problems":      {text: head + strings.Repeat("x,OPS,1\n", 200), problem: "and 100 more"},
		"an unfinished page": {text: "Station  Appl  CC  Phone Number\nExtension\n\n4750\n", problem: "extension 4750 has no application"},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems, err := Read(strings.NewReader(test.text))
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if all := strings.Join(problems, "\n"); !strings.Contains(all, test.problem) {
				t.Errorf("problems %s, want %s", all, test.problem)
			}
		})
	}
}

func TestTying(t *testing.T) {
	tel := func(v string) presence.Subject { return presence.Subject{Scheme: "tel", Value: v} }
	people := []presence.Person{
		{ID: "ann", Subjects: []presence.Subject{tel("4750"), {Scheme: "sip", Value: "4799@example.com"}}},
		{ID: "bob", Subjects: []presence.Subject{tel("4751")}},
	}
	find := func(s presence.Subject) (presence.Person, bool) {
		for _, p := range people {
			if slices.Contains(p.Subjects, s) {
				return p, true
			}
		}
		return presence.Person{}, false
	}
	all := []Mapping{
		{Line: 1, Extension: "4751", Application: "OPS", Number: "4751"},
		{Line: 2, Extension: "4750", Application: "EC500", CountryCode: "1", Number: "7325550142"},
		{Line: 3, Extension: "4751", Application: "OPS", Number: "4751"},
		{Line: 4, Extension: "4752", Application: "OPS", Number: "4752"},
		{Line: 5, Extension: "4751", Application: "OPS", Number: "4799"},
		{Line: 6, Extension: "4751", Application: "ONE-X", CountryCode: "1", Number: "7325550142"},
		{Line: 7, Extension: "4750", Application: "OPS", Number: "4799"},
		{Line: 8, Extension: "4750", Application: "EC500", Number: "4751"},
	}
	for name, test := range map[string]struct {
		rules Rules
		want  string
	}{
		"nothing is added": {Rules{}, `bob []
ann []
line 3: OPS of 4751 to 4751 stands in line 1 already
line 4: OPS of extension 4752 is of nobody in the directory
`},
		"all is added": {Rules{Domain: "Example.com", Mobiles: true}, `bob [sip:4751@example.com]
ann [tel:+17325550142]
line 3: OPS of 4751 to 4751 stands in line 1 already
line 4: OPS of extension 4752 is of nobody in the directory
line 5: sip:4799@example.com is of ann already, and not added to bob
line 6: tel:+17325550142 is added to ann already, and not to bob
line 8: tel:4751 is of bob already, and not added to ann
`},
	} {
		t.Run(name, func(t *testing.T) {
			ties, problems := Tying(all, find, test.rules)
			var got strings.Builder
			for _, tie := range ties {
				fmt.Fprintln(&got, tie.Person.ID, tie.Add)
			}
			for _, p := range problems {
				fmt.Fprintln(&got, p)
			}
			if d := cmp.Diff(test.want, got.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	report, err := os.ReadFile("testdata/report.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(report)
	f.Add([]byte("Station Extension,Appl,CC,Phone Number\n4750,EC500,1,7325550142\n"))
	f.Add([]byte("Appl;Extension\n\"OPS;1"))
	f.Add([]byte("Station Appl CC Phone\n4750 OPS \u00a0 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, problems, err := Read(strings.NewReader(string(data)))
		if err != nil && (all != nil || problems != nil) || len(problems) > maxProblems+1 {
			t.Fatalf("%d mappings, %d problems, %v", len(all), len(problems), err)
		}
		for _, m := range all {
			if m.Extension == "" || !dialable(m.Extension) || m.Application == "" || len(m.Number) > maxNumber+1 {
				t.Fatalf("%+v", m)
			}
		}
	})
}
