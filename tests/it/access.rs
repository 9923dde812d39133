//! Who may do and see what over HTTP, and that nothing which strangers write is more than text.

mod injections;
mod roles;
mod schemathesis;
mod tenants;
mod test_service;
mod tokens;

use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // It downloads where nothing is cached yet.
    let fetching = Needs::NOTHING.within(Duration::from_secs(300)).using(|| schemathesis::program().map(drop));
    let alone = Needs::NOTHING.alone().within(Duration::from_secs(300));
    vec![
        trial("access::a_token_opens_what_its_scopes_say_until_it_ends", Needs::NOTHING, tokens::scopes_and_ends),
        trial("access::every_route_asks_for_the_scope_that_is_described", Needs::NOTHING, tokens::every_route),
        trial("access::revoking_the_last_token_lets_nobody_in", Needs::NOTHING, tokens::last_one_revoked),
        trial("access::a_token_is_made_listed_and_revoked_on_the_command_line", Needs::NOTHING, tokens::command_line),
        trial("access::a_tenant_sees_its_own_rows_and_no_others", Needs::NOTHING, tenants::cannot_cross_over_http),
        trial("access::a_tenant_sees_its_own_board_and_documents", Needs::NOTHING, tenants::see_their_own_board_and_documents),
        trial(
            "access::a_tenant_is_recommended_its_own_documents_by_its_own_people",
            Needs::NOTHING,
            tenants::recommended_their_own,
        ),
        trial("access::a_tenant_sees_its_own_leads", Needs::NOTHING, tenants::see_their_own_leads),
        trial("access::the_policies_hold_where_the_service_does_not_ask", Needs::NOTHING, tenants::policies_hold),
        trial("access::a_pipeline_changes_its_tenant_only_by_an_order", Needs::NOTHING, tenants::handed_over_by_order),
        trial(
            "access::a_pipeline_that_is_handed_over_is_closed_to_its_old_tenant_within_seconds",
            Needs::NOTHING,
            tenants::handed_over_while_the_service_runs,
        ),
        trial(
            "access::no_tenant_takes_over_what_another_has_computed",
            Needs::NOTHING,
            tenants::take_nothing_over_from_each_other,
        ),
        trial(
            "access::questions_leave_the_walk_its_connections",
            Needs::NOTHING,
            tenants::questions_leave_the_walk_its_connections,
        ),
        trial("access::the_role_is_made_once_however_many_databases_want_it", Needs::NOTHING, roles::made_once),
        trial("access::who_may_not_make_the_role_hears_what_to_do", Needs::NOTHING, roles::refused_with_the_mend),
        trial("access::schemathesis_finds_no_fault_of_the_server", fetching, schemathesis::finds_no_fault),
        trial("access::what_strangers_write_in_documents_stays_text", alone, injections::documents_stay_text),
        trial("access::what_strangers_send_to_the_api_stays_text", Needs::NOTHING, injections::requests_stay_text),
    ]
}
