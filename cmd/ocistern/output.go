package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/ocistern/ocistern/internal/errdef"
)

// format is how data are printed. It is a flag value that refuses all but the known ones.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
)

func (f *format) register(flags *pflag.FlagSet) {
	*f = formatTable
	flags.VarP(f, "output", "o", "format of the data on standard output: table or json")
}

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "FORMAT" }

// Set implements pflag.Value.
func (f *format) Set(text string) error {
	switch chosen := format(text); chosen {
	case formatTable, formatJSON:
		*f = chosen
		return nil
	default:
		return errdef.New(errdef.UsageInvalid, "format %q is not known: table or json", text)
	}
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// table collects aligned rows and prints them at once.
type table struct {
	rows strings.Builder
}

// row adds one row.
func (t *table) row(cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			t.rows.WriteByte('\t')
		}
		fmt.Fprint(&t.rows, cell)
	}
	t.rows.WriteByte('\n')
}

// print aligns the columns, two spaces apart. An empty row separates tables of different columns.
func (t *table) print(out io.Writer) error {
	for i, block := range strings.Split(t.rows.String(), "\n\n") {
		if i > 0 {
			if _, err := fmt.Fprintln(out); err != nil {
				return err
			}
		}
		writer := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		if _, err := fmt.Fprintln(writer, strings.TrimSuffix(block, "\n")); err != nil {
			return err
		}
		if err := writer.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// size prints bytes for people.
func size(bytes uint64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, prefix := float64(bytes)/unit, 0
	for value >= unit && prefix < 4 {
		value, prefix = value/unit, prefix+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[prefix])
}
