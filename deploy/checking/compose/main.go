// Validate a compose file by Docker's own loader: its JSON schema, then interpolation and references.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithProfiles([]string{"*"}), cli.WithOsEnv)
	if err == nil {
		project, failed := options.LoadProject(context.Background())
		if err = failed; err == nil {
			fmt.Println(len(project.Services), "services")
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
