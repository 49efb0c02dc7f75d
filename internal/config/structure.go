package config

import (
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
)

// structure is what the items of a structured list are made of: a flat mapping with the keys of one table.
type structure struct {
	singular string    // names the flag and the variable
	short    [2]string // the keys of an item that is written KEY=VALUE; empty where there is no such form
	columns  []Column
	set      func(*Config, Value) error
}

// Column is one key that the items of a structured list may have.
type Column struct {
	Name string
	List bool // takes any number of values
	Doc  string
}

// Item is one mapping of a structured list.
type Item struct {
	Fields []Value // what was given, in the order in which it was; no default
	Origin string  // as of Value
}

// wrong returns an error about an item as a whole.
func (i Item) wrong(format string, args ...any) *errdef.Error {
	return errdef.New(errdef.ConfigInvalid, "%s: "+format, append([]any{i.Origin}, args...)...)
}

// located says where a wrong item stands, and keeps the remedy.
func (i Item) located(err error) error {
	return errdef.Wrap(errdef.ConfigInvalid, err, "%s", i.Origin)
}

// column is a Column that knows what to do with its value.
type column[T any] struct {
	name string
	list bool
	must bool // every item needs it
	doc  string
	set  func(*T, Value) error
}

// structureOf makes the structure of one list from its table. add checks an item as a whole and takes it over; the lists
// that stand above in Settings are there already.
func structureOf[T any](key, singular string, table []column[T], add func(*Config, Item, T) error) *structure {
	made := &structure{singular: singular}
	for _, c := range table {
		made.columns = append(made.columns, Column{Name: c.name, List: c.list, Doc: c.doc})
	}
	made.set = func(config *Config, v Value) error {
		for _, item := range v.Items {
			parsed, err := parseItem(key, table, item)
			if err != nil {
				return err
			}
			if err := add(config, item, parsed); err != nil {
				return err
			}
		}
		return nil
	}
	return made
}

func parseItem[T any](key string, table []column[T], item Item) (T, error) {
	var parsed T
	for _, c := range table {
		given := false
		for _, v := range item.Fields {
			if v.Setting.Key != key+"."+c.name {
				continue
			}
			given = true
			if err := c.set(&parsed, v); err != nil {
				return parsed, err
			}
		}
		if c.must && !given {
			return parsed, item.wrong("an item of %s has no %s", key, c.name).WithRemedy("write %s:", c.name)
		}
	}
	return parsed, nil
}

// into stores what parse makes of a value.
func into[T, V any](parse func(Value) (V, error), place func(*T) *V) func(*T, Value) error {
	return func(to *T, v Value) error {
		parsed, err := parse(v)
		*place(to) = parsed
		return err
	}
}

// given is into for what may be left out.
func given[T, V any](parse func(Value) (V, error), place func(*T) **V) func(*T, Value) error {
	return func(to *T, v Value) error {
		parsed, err := parse(v)
		*place(to) = &parsed
		return err
	}
}

// column returns the setting of one key of an item.
func (s Setting) column(name string) (Setting, bool) {
	for _, c := range s.structure.columns {
		if c.Name == name {
			return Setting{Key: s.Key + "." + name, List: c.List, Doc: c.Doc}, true
		}
	}
	return Setting{}, false
}

func (s Setting) columnNames() []string {
	names := make([]string, 0, len(s.structure.columns))
	for _, c := range s.structure.columns {
		names = append(names, c.Name)
	}
	return names
}

// example shows how an item is written in one line.
func (s Setting) example() string {
	if s.structure.short[0] != "" {
		return strings.ToUpper(strings.Join(s.structure.short[:], "="))
	}
	return "{" + s.structure.columns[0].Name + ": ...}"
}
