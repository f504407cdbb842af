package audit

import "fmt"

// target is what a kill stops.
type target struct{ kind, id string }

// kill notes what stands from here on.
func (s *rules) kill(r *record) {
	s.kills[r.text("kill")] = target{r.text("kind"), r.text("target")}
}

// killed returns the rule that a call breaks if it is sent although somebody stopped it.
func (s *rules) killed(r *record) []breach {
	if len(s.kills) == 0 {
		return nil
	}
	actor, tool := r.object("actor"), r.object("tool")
	agent, run := actor.text("agent"), actor.text("run")
	meant := map[target]bool{
		{"all", "*"}: true, {"agent", agent}: true, {"client", actor.text("client")}: true,
		{"run", run}: true, {"run", actor.text("root")}: true, {"actor", run + "/" + agent}: true,
		{"tool", tool.text("id")}: true, {"server", tool.text("server")}: true,
	}
	for _, one := range s.kills {
		if meant[one] {
			what := fmt.Sprintf("%s `%s` was stopped before", one.kind, one.id)
			return []breach{{"effect_despite_kill", what}}
		}
	}
	return nil
}
