package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Gauge reads one of the node's metrics. The values of all its labels are added up.
func (n *Node) Gauge(ctx context.Context, name string) (value float64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin()+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", n.Name, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("metrics of %s: %s", n.Name, response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", n.Name, err)
	}
	family, ok := families[name]
	if !ok {
		return 0, fmt.Errorf("metrics of %s: there is no %s", n.Name, name)
	}
	for _, metric := range family.GetMetric() {
		value += metric.GetGauge().GetValue()
	}
	return value, nil
}
